package fdset

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// client sends commands with descriptors to the reference's system emulator,
// the only one of its programs with these commands, and reads the replies.
type client struct {
	t       *testing.T
	monitor *daemon.Monitor
}

func (c *client) run(command string, args map[string]any, files ...*os.File) (result json.RawMessage, desc string) {
	c.t.Helper()
	text, err := json.Marshal(map[string]any{"execute": command, "arguments": args})
	if err != nil {
		c.t.Fatal(err)
	}
	var reply struct {
		Return json.RawMessage
		Error  struct{ Desc string }
	}
	if err := json.Unmarshal(c.monitor.Ask(text, files...), &reply); err != nil {
		c.t.Fatal(err)
	}
	return reply.Return, reply.Error.Desc
}

// TestReference plays one history to the emulator and to Sets. Numbers of
// descriptors differ between two processes; everything else must not.
func TestReference(t *testing.T) {
	t.Parallel()
	c := &client{t, daemon.Reference(t).SystemMonitor(t, "", "-machine", "none")}

	var s Sets
	defer s.Close()
	theirShape := func() string {
		raw, _ := c.run("query-fdsets", map[string]any{})
		var infos []struct {
			ID  int64 `json:"fdset-id"`
			FDs []any
		}
		if err := json.Unmarshal(raw, &infos); err != nil {
			t.Fatal(err)
		}
		var parts []string
		for _, info := range infos {
			parts = append(parts, fmt.Sprintf("%d:%d", info.ID, len(info.FDs)))
		}
		return strings.Join(parts, " ")
	}
	dups := map[string]*os.File{}
	defer func() {
		for _, f := range dups {
			f.Close()
		}
	}()
	compare := func(step string, ours error, theirs string) {
		text := ""
		if ours != nil {
			text = ours.Error()
		}
		if text != theirs {
			t.Errorf("%s: we say %q, the reference %q", step, text, theirs)
		}
		if ours, theirs := shape(&s), theirShape(); ours != theirs {
			t.Errorf("%s: we have %q, the reference %q", step, ours, theirs)
		}
	}
	addBoth := func(id *int64, mode int) {
		file := open(t, mode)
		args := map[string]any{}
		if id != nil {
			args["fdset-id"] = *id
		}
		_, desc := c.run("add-fd", args, file)
		_, _, err := s.Add(id, file, nil)
		compare(fmt.Sprint("add-fd ", args), err, desc)
	}
	removeBoth := func(id int64) {
		_, desc := c.run("remove-fd", map[string]any{"fdset-id": id})
		compare(fmt.Sprint("remove-fd ", id), s.Remove(id, nil), desc)
	}
	openBoth := func(node, path string, mode int) {
		_, desc := c.run("blockdev-add", map[string]any{"driver": "file", "node-name": node, "filename": path,
			"read-only": mode == os.O_RDONLY, "locking": "off"})
		file, _, err := s.Open(path, mode)
		if err == nil {
			dups[node] = file
		}
		compare("open "+path, err, desc)
	}
	closeBoth := func(node string) {
		_, desc := c.run("blockdev-del", map[string]any{"node-name": node})
		compare("close "+node, dups[node].Close(), desc)
	}

	addBoth(nil, os.O_RDONLY)
	addBoth(new(int64(5)), os.O_WRONLY)
	addBoth(new(int64(2)), os.O_RDWR)
	addBoth(nil, os.O_RDWR)
	addBoth(new(int64(2)), os.O_RDONLY)
	addBoth(new(int64(1<<32)), os.O_RDONLY)
	addBoth(new(int64(-1)), os.O_RDONLY)
	for i, path := range []string{"5", "0", "99", "", "x", "-1", "0x2", "2/2", "4294967296", "99999999999999999999", "-0", "2 "} {
		openBoth(fmt.Sprint("m", i), prefix+path, os.O_RDWR)
	}
	openBoth("a", prefix+"2", os.O_RDWR)
	openBoth("b", prefix+" 02", os.O_RDONLY)
	removeBoth(99)
	removeBoth(2)
	openBoth("c", prefix+"2", os.O_RDWR)
	closeBoth("a")
	addBoth(nil, os.O_RDWR)
	addBoth(new(int64(2)), os.O_RDWR)
	closeBoth("b")
	removeBoth(2)
	removeBoth(0)
	addBoth(nil, os.O_RDWR)

	var n Named
	defer n.Close()
	for _, name := range []string{"a", "a", "1", "", "x y"} {
		file := open(t, os.O_RDONLY)
		_, desc := c.run("getfd", map[string]any{"fdname": name}, file)
		compare("getfd "+name, n.Get(name, file), desc)
	}
	_, desc := c.run("getfd", map[string]any{"fdname": "1"})
	compare("getfd without a file", n.Get("1", nil), desc)
	for _, name := range []string{"a", "a", "b", ""} {
		_, desc := c.run("closefd", map[string]any{"fdname": name})
		compare("closefd "+name, n.CloseFD(name), desc)
	}
}
