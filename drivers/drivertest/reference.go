package drivertest

import (
	"os"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// Reference is a running system emulator of the reference without a machine:
// the storage daemon's block layer, and qemu-io besides.
type Reference struct {
	tb      testing.TB
	monitor *daemon.Monitor
	// Dir is its current directory.
	Dir string
}

// StartReference starts the reference for one test; without one the test is
// skipped.
func StartReference(tb testing.TB) *Reference {
	tb.Helper()
	dir, err := os.MkdirTemp("", "q") // a socket's path must be short
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	return &Reference{tb, daemon.Reference(tb).SystemMonitor(tb, dir, "-machine", "none"), dir}
}

// reply is the next message that is no event.
func (r *Reference) reply() qjson.Value {
	r.tb.Helper()
	for {
		line := r.monitor.Read()
		v, err := qjson.Parse(line)
		if err != nil {
			r.tb.Fatalf("%v in %s", err, line)
		}
		if !v.Get("event").Exists() {
			return v
		}
	}
}

// Ask runs a command and returns its value, or the text of its error.
func (r *Reference) Ask(command, args string) (qjson.Value, string) {
	r.tb.Helper()
	r.monitor.Send([]byte(`{"execute":"` + command + `","arguments":` + args + "}"))
	v := r.reply()
	return v.Get("return"), v.Get("error").Get("desc").Str()
}

// Do runs a command that must succeed.
func (r *Reference) Do(command, args string) qjson.Value {
	r.tb.Helper()
	v, desc := r.Ask(command, args)
	if desc != "" {
		r.tb.Fatalf("%s %s: %s", command, args, desc)
	}
	return v
}

// IO runs a command of qemu-io on a node. Some errors are returned, others go
// to the program's own output.
func (r *Reference) IO(node, command string) string {
	r.tb.Helper()
	line := qjson.AppendString(nil, "qemu-io "+node+` "`+command+`"`)
	return strings.TrimSuffix(r.Do("human-monitor-command", `{"command-line":`+string(line)+`}`).Str(), "\r\n")
}

// Node describes one node as query-named-block-nodes does.
func (r *Reference) Node(name string) qjson.Value {
	r.tb.Helper()
	for n := range r.Do("query-named-block-nodes", `{"flat":true}`).Elems() {
		if n.Get("node-name").Str() == name {
			return n
		}
	}
	r.tb.Fatalf("the reference has no node %q", name)
	return qjson.Value{}
}
