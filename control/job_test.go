package control_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/control"
)

// told is what a client hears until it has heard of enough, one word each.
func (c *client) told(enough string) []string {
	c.t.Helper()
	var words []string
	for {
		m := c.must()
		word := "reply"
		switch {
		case m.Event != "":
			var d struct{ ID, Status string }
			if err := json.Unmarshal(m.Data, &d); err != nil {
				c.t.Fatal(err)
			}
			word = d.Status
		case m.Error != nil:
			word = m.Error.Desc
		}
		words = append(words, word)
		if word == enough {
			return words
		}
	}
}

// The work of a job that makes a file begins before the reply, and what follows
// from its end comes behind it, however fast the file system is. Another client
// gets in the way as much as it can.
func TestOrderOfCreation(t *testing.T) {
	t.Parallel()
	i := instance(t, control.Config{})
	folder := t.TempDir()
	other := qmpClient(t, listen(t, i))
	c := qmpClient(t, listen(t, i))
	for n := range 200 {
		other.send(`{"execute": "query-jobs"}`)
		path := filepath.Join(folder, fmt.Sprint(n))
		want := "created running reply waiting pending concluded"
		if n%4 == 3 {
			path = filepath.Join(folder, "none", "file")
			want = "created running aborting concluded reply"
		}
		c.send(fmt.Sprintf(`{"execute": "blockdev-create", "arguments": {"job-id": "j", "options": {"driver": "file", "filename": %q, "size": 4096}}}`, path))
		end := want[strings.LastIndexByte(want, ' ')+1:]
		if got := strings.Join(c.told(end), " "); got != want {
			t.Fatalf("turn %d: %s, want %s", n, got, want)
		}
		c.send(`{"execute": "job-dismiss", "arguments": {"id": "j"}}`)
		if got := c.told("reply"); !slices.Equal(got, []string{"null", "reply"}) {
			t.Fatalf("turn %d: %q", n, got)
		}
		if st, err := os.Stat(path); n%4 != 3 && (err != nil || st.Size() != 4096) {
			t.Errorf("turn %d: %v", n, err)
		}
	}
}

// The same over JSON-RPC.
func TestOrderOfCreationOverJSONRPC(t *testing.T) {
	t.Parallel()
	i := control.New(control.Config{})
	t.Cleanup(i.Close)
	path := filepath.Join(shortDir(t), "rpc.sock")
	if err := i.ListenJSONRPC("unix:" + path); err != nil {
		t.Fatal(err)
	}
	i.Start()
	c := dial(t, path)
	file := filepath.Join(t.TempDir(), "file")
	for n := range 100 {
		c.send(fmt.Sprintf(`{"jsonrpc": "2.0", "id": %d, "method": "blockdev-create", "params": {"job-id": "j%d", "options": {"driver": "file", "filename": %q, "size": 4096}}}`, n, n, file))
		var words []string
		for len(words) < 6 {
			var m struct {
				ID     *int
				Params struct{ Data struct{ Status string } }
			}
			if !c.next(&m) {
				t.Fatal("the connection ended")
			}
			if m.ID != nil {
				m.Params.Data.Status = "reply"
			}
			words = append(words, m.Params.Data.Status)
		}
		if got, want := strings.Join(words, " "), "created running reply waiting pending concluded"; got != want {
			t.Fatalf("turn %d: %s, want %s", n, got, want)
		}
	}
}

// When the daemon ends, what is left of jobs goes before the last reply.
func TestJobsAtQuit(t *testing.T) {
	t.Parallel()
	i := instance(t, control.Config{})
	c := qmpClient(t, listen(t, i))
	const jobs = 20
	for n := range jobs {
		path := filepath.Join(t.TempDir(), "file")
		c.send(fmt.Sprintf(`{"execute": "blockdev-create", "arguments": {"job-id": "j%d", "options": {"driver": "file", "filename": %q, "size": 65536, "preallocation": "full"}}}`, n, path))
	}
	c.send(`{"execute": "quit"}`)
	last, gone := "", 0
	for {
		var m message
		if !c.next(&m) {
			break
		}
		last = "event"
		if m.Event == "" {
			last = "reply"
		} else if strings.Contains(string(m.Data), `"null"`) {
			gone++
		}
	}
	if last != "reply" || gone != jobs {
		t.Errorf("the last one was an %s, %d jobs went", last, gone)
	}
	<-i.Done()
}
