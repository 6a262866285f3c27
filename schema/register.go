package schema

import (
	"context"

	"github.com/qmpblock/qmpblock/qjson"
)

// The functions by which generated code registers handlers, one for each
// shape: with and without arguments, with and without an answer.

// nothing is the answer of a command that returns nothing.
const nothing = "{}"

// arguments reads a command's arguments into x. Absent arguments are an empty
// object.
func arguments[T any, P interface {
	*T
	decodable
}](t *Table, args qjson.Value, x *T) error {
	d := t.decoders.Get().(*decoder)
	d.version = t.version
	ok := false
	if args.Exists() {
		ok = readObject[T, P](d, args, x)
	} else {
		ok = P(x).decodeMembers(d)
	}
	err := d.err
	d.reset()
	t.decoders.Put(d)
	if ok {
		return nil
	}
	return err
}

// noArguments are those of a command without any.
type noArguments struct{}

func (*noArguments) decodeMembers(*decoder) bool { return true }

func registerAction(t *Table, index int, h func(context.Context) error) {
	registerActionWith(t, index, func(ctx context.Context, _ *noArguments) error { return h(ctx) })
}

func registerActionWith[T any, P interface {
	*T
	decodable
}](t *Table, index int, h func(context.Context, *T) error) {
	t.register(index, func(ctx context.Context, args qjson.Value, out []byte) ([]byte, error) {
		x := new(T)
		if err := arguments[T, P](t, args, x); err != nil {
			return out, err
		}
		if err := h(ctx, x); err != nil {
			return out, err
		}
		return append(out, nothing...), nil
	})
}

func registerQuery[R any](t *Table, index int, h func(context.Context) (R, error), write func([]byte, R, Version) []byte) {
	with := func(ctx context.Context, _ *noArguments) (R, error) { return h(ctx) }
	registerQueryWith(t, index, with, write)
}

func registerQueryWith[T, R any, P interface {
	*T
	decodable
}](t *Table, index int, h func(context.Context, *T) (R, error), write func([]byte, R, Version) []byte) {
	t.register(index, func(ctx context.Context, args qjson.Value, out []byte) ([]byte, error) {
		x := new(T)
		if err := arguments[T, P](t, args, x); err != nil {
			return out, err
		}
		r, err := h(ctx, x)
		if err != nil {
			return out, err
		}
		return write(out, r, t.version), nil
	})
}

// The writers of answers.

func returnObject[R encodable](out []byte, r R, v Version) []byte { return r.appendJSON(out, v) }

func returnList[R encodable](out []byte, r []R, v Version) []byte { return appendList(out, r, v) }

func returnScalar[R any](write func([]byte, R) []byte) func([]byte, R, Version) []byte {
	return func(out []byte, r R, _ Version) []byte { return write(out, r) }
}
