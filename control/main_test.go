package control_test

import (
	"bufio"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/qmpblock/qmpblock/control"
	"github.com/qmpblock/qmpblock/qerr"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// TestMain fails if any test left a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// system is a running machine.
func system(t *testing.T) *control.Instance {
	t.Helper()
	return instance(t, control.Config{Personality: control.System})
}

// shortDir is a folder whose path leaves room for the name of a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "q")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	return folder
}

// disk makes a file of zeroes and returns its path.
func disk(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// hmp runs a line of the monitor for people.
func hmp(t *testing.T, i *control.Instance, line string) string {
	t.Helper()
	out := execute(t, i, "human-monitor-command", arguments(t, `{"command-line": %q}`, line))
	var text string
	if err := json.Unmarshal(out, &text); err != nil {
		t.Fatal(err)
	}
	return text
}

// wantError checks class and text of an error.
func wantError(t *testing.T, err error, class qerr.Class, desc string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want %q", desc)
		return
	}
	if e := qerr.From(err); e.Class != class || e.Desc != desc {
		t.Errorf("got %s %q, want %s %q", e.Class, e.Desc, class, desc)
	}
}

// message is anything that a server sends.
type message struct {
	QMP       json.RawMessage
	Return    json.RawMessage
	Error     *struct{ Class, Desc string }
	Event     string
	Data      json.RawMessage
	Timestamp timestamp
}

type timestamp struct{ Seconds, Microseconds int64 }

// client talks to a socket, a line at a time.
type client struct {
	t     *testing.T
	conn  net.Conn
	lines *bufio.Scanner
}

func dial(t *testing.T, path string) *client {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &client{t, conn, bufio.NewScanner(conn)}
}

// next is the next message; false at the end of the connection.
func (c *client) next(into any) bool {
	c.t.Helper()
	if !c.lines.Scan() {
		return false
	}
	if err := json.Unmarshal(c.lines.Bytes(), into); err != nil {
		c.t.Fatalf("%q: %v", c.lines.Bytes(), err)
	}
	return true
}

func (c *client) must() message {
	c.t.Helper()
	var m message
	if !c.next(&m) {
		c.t.Fatalf("the connection ended: %v", c.lines.Err())
	}
	return m
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := c.conn.Write([]byte(text + "\n")); err != nil {
		c.t.Fatal(err)
	}
}

// qmpClient is a client that has negotiated.
func qmpClient(t *testing.T, path string) *client {
	t.Helper()
	c := dial(t, path)
	if m := c.must(); m.QMP == nil {
		t.Fatalf("no greeting: %+v", m)
	}
	c.send(`{"execute": "qmp_capabilities"}`)
	if m := c.must(); m.Return == nil {
		t.Fatalf("no session: %+v", m)
	}
	return c
}

// listen gives an instance a monitor on a socket and returns the path.
func listen(t *testing.T, i *control.Instance) string {
	t.Helper()
	path := filepath.Join(shortDir(t), "qmp.sock")
	if err := i.AddQMP("unix:"+path+",server=on,wait=off", false); err != nil {
		t.Fatal(err)
	}
	return path
}
