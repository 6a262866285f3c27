package block_test

import (
	"errors"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

// stamp is a driver that makes images of 512 bytes with one value.
func stamp(created *error) *block.Driver {
	return &block.Driver{
		Name: "stamp",
		Kind: block.Format,
		Create: func(co *aio.Co, a *block.CreateArgs) error {
			if a.Has("backing") {
				return errors.New("no backing file")
			}
			b, err := a.Use(co, "file", block.PermWrite|block.PermResize, block.PermAll)
			if err != nil {
				return err
			}
			defer a.Done(co, b)
			if err := b.CoPwritev(co, 0, drivertest.Fill(0x77, 512), 0); err != nil {
				return err
			}
			*created = b.CoFlush(co)
			return *created
		},
	}
}

// An image is made on a node that the options name or describe, with a backend
// that is gone afterwards.
func TestCreate(t *testing.T) {
	t.Parallel()
	created := errors.New("nothing was created")
	d := stamp(&created)
	b := drivertest.New(t, d)
	n := b.Add(`{"driver": "mem", "node-name": "m", "size": 1024}`)
	create := func(options string) (err error) {
		o := b.Options(options)
		p := b.Graph.Main().Enter("create", func(co *aio.Co) { err = b.Graph.CoCreate(co, d, o) })
		if p != nil {
			t.Fatal(p)
		}
		return err
	}
	for _, options := range []string{
		`{"driver": "stamp", "file": "m"}`,
		`{"driver": "stamp", "file": {"driver": "mem", "node-name": "inline", "size": 512}}`,
	} {
		if err := create(options); err != nil || created != nil {
			t.Errorf("%s: %v, %v", options, err, created)
		}
	}
	if n.HasBackend() || b.Graph.Node("inline") != nil {
		t.Error("something is left behind")
	}
	for options, want := range map[string]string{
		`{"driver": "stamp"}`:                                `A block device must be specified for "file"`,
		`{"driver": "stamp", "file": "none"}`:                `Cannot find device='none' nor node-name='none'`,
		`{"driver": "stamp", "file": "m", "backing": "m"}`:   "no backing file",
		`{"driver": "stamp", "file": "m", "backing.x": "m"}`: "no backing file",
	} {
		if err := create(options); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", options, err, want)
		}
	}
}
