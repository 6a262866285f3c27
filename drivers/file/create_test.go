package file_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/file"
)

// create makes a file with the given options.
func create(t *testing.T, b *drivertest.Bench, path, options string) (err error) {
	t.Helper()
	o := b.Options(`{"driver": "file", "filename": "` + path + `", ` + options + `}`)
	p := b.Graph.Main().Enter("create", func(co *aio.Co) {
		err = b.Graph.CoCreate(co, b.Graph.Driver("file"), o)
	})
	if p != nil {
		t.Fatal(p)
	}
	if left := o.Keys(); err == nil && len(left) > 0 {
		t.Errorf("options %q are left", left)
	}
	return err
}

func TestCreate(t *testing.T) {
	t.Parallel()
	b := drivertest.New(t, file.Driver())
	path := filepath.Join(t.TempDir(), "new")
	for _, c := range []struct {
		options string
		size    int64
		err     string
	}{
		{`"size": 0`, 0, ""},
		{`"size": 65536`, 65536, ""},
		{`"size": 1000, "nocow": true, "extent-size-hint": 0`, 1000, ""},
		{`"size": 1`, 512, ""}, // see writeFirstBlock
		{`"size": 131072, "preallocation": "falloc", "extent-size-hint": 65536`, 131072, ""},
		{`"size": 131072, "preallocation": "full"`, 131072, ""},
		{`"size": 131072, "preallocation": "metadata"`, 0, "Unsupported preallocation mode: metadata"},
		{`"size": 18446744073709551615`, 0, "Could not resize file: Invalid argument"},
		{`"size": 1, "extent-size-hint": 4294967296`, -1, "Extent size hint is too large"},
	} {
		// What is there is emptied first.
		if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := create(t, b, path, c.options)
		if text := errorText(err); text != c.err {
			t.Errorf("%s: %q, want %q", c.options, text, c.err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if c.size >= 0 && (int64(len(data)) != c.size || strings.Trim(string(data), "\x00") != "") {
			t.Errorf("%s: %d bytes, or other than zeroes", c.options, len(data))
		}
		if c.size < 0 && string(data) != "old" {
			t.Errorf("%s: the file was changed", c.options)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// A file whose length somebody relies on is not touched, and nothing of the
// attempt is left.
func TestCreateInUse(t *testing.T) {
	t.Parallel()
	b := drivertest.New(t, file.Driver())
	path := filepath.Join(t.TempDir(), "used")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := b.Add(`{"driver": "file", "node-name": "f", "filename": "` + path + `"}`)
	user, err := b.TryUse(n, block.PermConsistentRead, block.PermAll&^block.PermResize)
	if err != nil {
		t.Fatal(err)
	}
	if err := create(t, b, path, `"size": 0`); errorText(err) != `Failed to get "resize" lock` {
		t.Error(err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "old" {
		t.Errorf("%q, %v", data, err)
	}
	b.Drop(user)
	if err := create(t, b, path, `"size": 0`); err != nil {
		t.Error(err)
	}
}

func TestCreateNowhere(t *testing.T) {
	t.Parallel()
	b := drivertest.New(t, file.Driver())
	folder := t.TempDir()
	for path, want := range map[string]string{
		folder:                             "Could not create '" + folder + "': Is a directory",
		filepath.Join(folder, "none", "f"): "Could not create '" + filepath.Join(folder, "none", "f") + "': No such file or directory",
	} {
		if err := create(t, b, path, `"size": 0`); errorText(err) != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
