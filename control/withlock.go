package control

import (
	"context"

	"github.com/qmpblock/qmpblock/block/aio"
)

// Most commands run in the main context, outside of coroutines. These
// adapters take the context's lock for a handler and give it back. Commands
// that touch no node go without.

func action(i *Instance, h func(*aio.Lock) error) func(context.Context) error {
	return func(context.Context) error {
		l := i.graph.Main().Acquire()
		defer l.Release()
		return h(l)
	}
}

func actionWith[A any](i *Instance, h func(*aio.Lock, A) error) func(context.Context, A) error {
	return func(_ context.Context, a A) error {
		l := i.graph.Main().Acquire()
		defer l.Release()
		return h(l, a)
	}
}

func query[R any](i *Instance, h func(*aio.Lock) (R, error)) func(context.Context) (R, error) {
	return func(context.Context) (R, error) {
		l := i.graph.Main().Acquire()
		defer l.Release()
		return h(l)
	}
}

func queryWith[A, R any](i *Instance, h func(*aio.Lock, A) (R, error)) func(context.Context, A) (R, error) {
	return func(_ context.Context, a A) (R, error) {
		l := i.graph.Main().Acquire()
		defer l.Release()
		return h(l, a)
	}
}
