package qmp

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/schema"
	"github.com/qmpblock/qmpblock/trace"
)

// ErrShutdown is returned by a dispatcher that takes no commands any more.
var ErrShutdown = errors.New("shutting down")

// Dispatcher runs the commands of one instance, one at a time, whichever
// monitor they come from. It must not be copied.
type Dispatcher struct {
	// Commands are those that exist.
	Commands *schema.Table
	// Around, when not nil, runs each command in place of c.Run, which it
	// calls itself: the place for what all commands need.
	Around func(ctx context.Context, c *schema.Command, args qjson.Value, out []byte) ([]byte, error)
	// Tracer gets a line when a command starts and when it is done; nil: none.
	Tracer *trace.Tracer

	turn sync.Mutex
	shut atomic.Bool
}

// Execute runs a command as soon as no other runs, and appends the value it
// returns to out, which is unchanged when it fails. args is absent or an
// object. Unknown commands are errors of class CommandNotFound.
func (d *Dispatcher) Execute(ctx context.Context, name string, args qjson.Value, out []byte) ([]byte, error) {
	var err error
	Answerer{d}.Execute(ctx, name, args, out, func(result []byte, failure error) { out, err = result, failure })
	return out, err
}

// Answerer runs commands as Execute does, for servers of other protocols.
type Answerer struct{ Dispatcher *Dispatcher }

// Execute runs a command and hands what it returns to answer, which gives the
// reply its place among the events and must not wait.
func (a Answerer) Execute(ctx context.Context, name string, args qjson.Value, out []byte, answer func([]byte, error)) {
	d := a.Dispatcher
	c := d.Commands.Lookup(name)
	if c == nil {
		answer(out, errUnknown(name))
		return
	}
	d.turn.Lock()
	defer d.turn.Unlock()
	answer(d.run(ctx, c, args, out))
}

// Shutdown lets no further command begin, neither queued nor new ones; their
// sessions end without an answer. A command that is running is not disturbed,
// it may be the one that calls Shutdown.
func (d *Dispatcher) Shutdown() { d.shut.Store(true) }

// Turns is held by whoever runs a command, until the reply has its place among
// the events: what others do between commands they do with this lock.
func (d *Dispatcher) Turns() sync.Locker { return &d.turn }

// run runs a command for somebody who holds the turn.
func (d *Dispatcher) run(ctx context.Context, c *schema.Command, args qjson.Value, out []byte) ([]byte, error) {
	if d.shut.Load() {
		return out, ErrShutdown
	}
	run := d.Around
	if run == nil {
		run = call
	}
	return d.traced(run, ctx, c, args, out)
}

// runNow runs a command that is allowed to, out of band: at once, beside
// whatever is running.
func (d *Dispatcher) runNow(ctx context.Context, c *schema.Command, args qjson.Value, out []byte) ([]byte, error) {
	if d.shut.Load() {
		return out, ErrShutdown
	}
	return d.traced(call, ctx, c, args, out)
}

type runFunc = func(ctx context.Context, c *schema.Command, args qjson.Value, out []byte) ([]byte, error)

func call(ctx context.Context, c *schema.Command, args qjson.Value, out []byte) ([]byte, error) {
	return c.Run(ctx, args, out)
}

func (d *Dispatcher) traced(run runFunc, ctx context.Context, c *schema.Command, args qjson.Value, out []byte) ([]byte, error) {
	if e := d.Tracer.At(trace.CommandStart); e != nil {
		e.Str("command", c.Name).Bytes("arguments", qjson.AppendValue(nil, args)).Send()
	}
	start := len(out)
	out, err := run(ctx, c, args, out)
	if e := d.Tracer.At(trace.CommandDone); e != nil {
		e.Str("command", c.Name).Err(err).Send()
	}
	if err != nil {
		return out[:start], err
	}
	return out, nil
}

func errUnknown(name string) error {
	return qerr.WithClass(qerr.CommandNotFound, "The command %s has not been found", name)
}
