package aio

import (
	"sync/atomic"

	"github.com/qmpblock/qmpblock/trace"
)

// Caller says from which world an operation is called: *Co, *Lock or Outside.
type Caller interface{ caller() (*Co, *Lock) }

// Holder is a caller that may open a driver: it holds a context's lock, or is
// a coroutine.
type Holder interface {
	Caller
	holder()
}

func (co *Co) caller() (*Co, *Lock)  { return co, nil }
func (l *Lock) caller() (*Co, *Lock) { return nil, l }

func (*Co) holder()   {}
func (*Lock) holder() {}

type outside struct{}

func (outside) caller() (*Co, *Lock) { return nil, nil }

// Outside is the caller that is neither a coroutine nor holds a context lock.
var Outside Caller = outside{}

// Coroutine returns the caller's coroutine, or nil when it is none.
func Coroutine(c Caller) *Co {
	co, _ := c.caller()
	return co
}

// Mixed runs op, which only a coroutine may run, for any caller: directly for a
// coroutine, else in a new coroutine of home, for whose end it polls. A panic
// of the new coroutine is returned as a [*PanicError].
func Mixed[T any](c Caller, home *Context, op string, fn func(*Co) (T, error)) (T, error) {
	co, lock := c.caller()
	if co != nil {
		home.direct.Add(1)
		home.tracer.At(trace.CoroutineDirect).Str("op", op).Str("context", home.name).Send()
		return fn(co)
	}
	home.spawned.Add(1)
	home.tracer.At(trace.CoroutineSpawn).Str("op", op).Str("context", home.name).Send()
	return spawnAndPoll(lock, home, op, fn)
}

func spawnAndPoll[T any](lock *Lock, home *Context, op string, fn func(*Co) (T, error)) (T, error) {
	var (
		result  T
		err     error
		done    atomic.Bool
		polling = home
	)
	if lock != nil {
		polling = lock.ctx
	}
	home.Spawn(op,
		func(co *Co) { result, err = fn(co) },
		func(p *PanicError) {
			if p != nil {
				err = p
			}
			done.Store(true)
			if polling != home {
				polling.Kick()
			}
		})
	running := func() bool { return !done.Load() }
	if lock != nil {
		WaitWhile(lock, running)
	} else {
		WaitWhileUnlocked(home, running)
	}
	return result, err
}
