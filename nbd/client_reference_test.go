package nbd_test

import (
	"testing"

	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/nbd"
	"github.com/qmpblock/qmpblock/nbd/nbdtest"
	"github.com/qmpblock/qmpblock/qjson"
)

// TestReferenceLies tells the same lies to the reference.
func TestReferenceLies(t *testing.T) {
	t.Parallel()
	r := drivertest.StartReference(t)
	for _, c := range lies {
		s := nbdtest.Listen(t, 4096, nbdtest.Script{Mode: c.mode, Option: c.option})
		path := string(qjson.AppendString(nil, s.Path))
		_, desc := r.Ask("blockdev-add", `{"driver":"nbd","node-name":"n0","server":{"type":"unix","path":`+path+`},"export":"exp"}`)
		if desc != c.err {
			t.Errorf("%s: %q, we say %q", c.name, desc, c.err)
		}
		if desc == "" {
			r.Do("blockdev-del", `{"node-name":"n0"}`)
		}
	}
}

// TestReferenceAsks compares what the two ask of a server.
func TestReferenceAsks(t *testing.T) {
	t.Parallel()
	r := drivertest.StartReference(t)
	for name, mode := range modes {
		var ours, theirs [][]byte
		for _, into := range []*[][]byte{&ours, &theirs} {
			s := nbdtest.Listen(t, 4096, nbdtest.Script{Mode: mode, Context: nbd.ContextAllocation, Option: func(o nbd.Option, data []byte) []byte {
				*into = append(*into, append([]byte(o.String()+" "), data...))
				return nil
			}})
			if into == &ours {
				session, err := handshake(s, wish("exp"))
				if err != nil {
					t.Fatal(err)
				}
				session.Conn.Close()
			} else {
				path := string(qjson.AppendString(nil, s.Path))
				r.Do("blockdev-add", `{"driver":"nbd","node-name":"n0","server":{"type":"unix","path":`+path+`},"export":"exp"}`)
				r.Do("blockdev-del", `{"node-name":"n0"}`)
			}
			s.Stop()
		}
		if len(ours) != len(theirs) {
			t.Fatalf("%s: %q, the reference %q", name, ours, theirs)
		}
		for i := range ours {
			if string(ours[i]) != string(theirs[i]) {
				t.Errorf("%s: %q, the reference %q", name, ours[i], theirs[i])
			}
		}
	}
}
