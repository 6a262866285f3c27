package qom

import (
	"math"
	"sync"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
)

// Hooks connect objects with what they stand for. A nil hook does nothing.
type Hooks struct {
	// NewIOThread starts the thread of an iothread object.
	NewIOThread func(id string, p EventLoopParams) (EventLoop, error)
	// NewMainLoop is called when the main-loop object, of which there is at
	// most one, is made.
	NewMainLoop func(p EventLoopParams) (EventLoop, error)
}

// EventLoop is what an iothread or main-loop object stands for.
type EventLoop interface {
	// SetParams changes parameters of the running loop.
	SetParams(p EventLoopParams)
	// Close is called when the object is deleted. What still uses the loop
	// may go on using it.
	Close()
}

// EventLoopParams are the properties of iothread and main-loop objects. They
// are not negative.
type EventLoopParams struct {
	PollMaxNS     int64 // nanoseconds to poll at most before sleeping; 0: never poll
	PollGrow      int64 // factor by which the time to poll grows; 0: 2
	PollShrink    int64 // divisor by which it shrinks; 0: at once to 0
	AIOMaxBatch   int64 // requests submitted at once; 0: the engine's default
	ThreadPoolMin int64 // workers kept, at most ThreadPoolMax
	ThreadPoolMax int64 // workers at most, 1 … 2^31-1
}

// eventLoop is the value of iothread and main-loop objects.
type eventLoop struct {
	start func(id string, p EventLoopParams) (EventLoop, error)

	mu     sync.Mutex
	params EventLoopParams
	done   bool // Complete was called: the params must be consistent
	loop   EventLoop
}

func newIOThread(o *Object) any {
	return &eventLoop{
		start:  o.tree.hooks.NewIOThread,
		params: EventLoopParams{PollMaxNS: 32768, ThreadPoolMax: 64},
	}
}

// mainLoop is the value of a main-loop object, which stays for ever.
type mainLoop struct{ eventLoop }

func newMainLoop(o *Object) any {
	m := &mainLoop{eventLoop{params: EventLoopParams{ThreadPoolMax: 64}}}
	if hook := o.tree.hooks.NewMainLoop; hook != nil {
		m.start = func(_ string, p EventLoopParams) (EventLoop, error) { return hook(p) }
	}
	return m
}

// Complete starts the main loop's object unless there is one already.
func (m *mainLoop) Complete(o *Object) error {
	for _, other := range o.parent.Children() {
		if other.typ == o.typ && other != o {
			return qerr.New("only one main-loop instance allowed")
		}
	}
	return m.eventLoop.Complete(o)
}

// InUse tells that a main loop cannot be deleted.
func (m *mainLoop) InUse() bool { return true }

// Complete starts the loop.
func (e *eventLoop) Complete(o *Object) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.check(); err != nil {
		return err
	}
	e.done = true
	if e.start == nil {
		return nil
	}
	var err error
	e.loop, err = e.start(o.name, e.params)
	return err
}

// Close ends the loop.
func (e *eventLoop) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.loop != nil {
		e.loop.Close()
		e.loop = nil
	}
}

func (e *eventLoop) check() error {
	p := e.params
	if p.ThreadPoolMax < 1 || p.ThreadPoolMax > math.MaxInt32 || p.ThreadPoolMin > p.ThreadPoolMax {
		return qerr.New("bad thread-pool-min/thread-pool-max values")
	}
	return nil
}

// IOThread returns the loop of the iothread of that id, nil if there is none.
func (t *Tree) IOThread(id string) EventLoop {
	o := t.Lookup(id)
	if o == nil {
		return nil
	}
	e, ok := o.Value.(*eventLoop)
	if !ok {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.loop
}

// eventLoopOf returns the value of an iothread or main-loop object.
func eventLoopOf(o *Object) *eventLoop {
	if m, ok := o.Value.(*mainLoop); ok {
		return &m.eventLoop
	}
	return o.Value.(*eventLoop)
}

// eventLoopProperty makes the property for one of the parameters. A value is
// stored before the parameters are checked against each other, and stays when
// they do not fit (observed).
func eventLoopProperty(name string, field func(p *EventLoopParams) *int64) *Property {
	return &Property{
		Name: name,
		Type: "int",
		Get: func(o *Object, dst []byte) ([]byte, error) {
			e := eventLoopOf(o)
			e.mu.Lock()
			defer e.mu.Unlock()
			return qjson.AppendInt(dst, *field(&e.params)), nil
		},
		Set: func(o *Object, v qjson.Value) error {
			n, err := visitInt(v, name)
			if err != nil {
				return err
			}
			if n < 0 {
				return qerr.New("%s value must be in range [0, %d]", name, int64(math.MaxInt64))
			}
			return eventLoopOf(o).update(field, n)
		},
	}
}

func (e *eventLoop) update(field func(p *EventLoopParams) *int64, n int64) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	*field(&e.params) = n
	if !e.done {
		return nil
	}
	if err := e.check(); err != nil {
		return err
	}
	if e.loop != nil {
		e.loop.SetParams(e.params)
	}
	return nil
}

// eventLoopTypes are event-loop-base and its descendants.
func eventLoopTypes() []*Type {
	return []*Type{
		{Name: "event-loop-base", Parent: typeObject, Abstract: true, Interfaces: []string{typeUserCreatable}, Properties: []*Property{
			eventLoopProperty("aio-max-batch", func(p *EventLoopParams) *int64 { return &p.AIOMaxBatch }),
			eventLoopProperty("thread-pool-min", func(p *EventLoopParams) *int64 { return &p.ThreadPoolMin }),
			eventLoopProperty("thread-pool-max", func(p *EventLoopParams) *int64 { return &p.ThreadPoolMax }),
		}},
		{Name: "main-loop", Parent: "event-loop-base", New: newMainLoop},
		{Name: "iothread", Parent: "event-loop-base", New: newIOThread, Properties: []*Property{
			eventLoopProperty("poll-max-ns", func(p *EventLoopParams) *int64 { return &p.PollMaxNS }),
			eventLoopProperty("poll-grow", func(p *EventLoopParams) *int64 { return &p.PollGrow }),
			eventLoopProperty("poll-shrink", func(p *EventLoopParams) *int64 { return &p.PollShrink }),
		}},
	}
}
