package transcript

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// fakeEnv makes this test's own program a daemon for the player.
const fakeEnv = "TRANSCRIPT_FAKE_DAEMON"

func TestMain(m *testing.M) {
	if os.Getenv(fakeEnv) == "" {
		os.Exit(m.Run())
	}
	if err := fake(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "fake: "+err.Error())
		os.Exit(1)
	}
	os.Exit(0)
}

// fake is a daemon that greets and sends every line back: "echo TEXT" as
// TEXT, "twice TEXT" as two lines, "bare TEXT" without a CR, "die" ends it.
func fake(args []string) error {
	var path string
	for _, word := range args {
		if strings.HasPrefix(word, "socket,") {
			path = strings.TrimPrefix(strings.Split(word, ",")[1], "path=")
		}
	}
	if path == "" {
		return fmt.Errorf("unrecognized option '%s'", strings.Join(args, " "))
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	c, err := l.Accept()
	if err != nil {
		return err
	}
	fmt.Fprint(c, "{\"QMP\": {}}\r\n")
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		verb, text, _ := strings.Cut(lines.Text(), " ")
		switch verb {
		case "echo":
			fmt.Fprintf(c, "%s\r\n", text)
		case "twice":
			fmt.Fprintf(c, "%s\r\n%s\r\n", text, text)
		case "bare":
			fmt.Fprintf(c, "%s\n", text)
		case "die":
			fmt.Println("dying as told")
			return c.Close()
		}
	}
	return nil
}

func fakePlayer(t *testing.T) *Player {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "q")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	program := &daemon.Program{Name: "fake", Storage: []string{"/usr/bin/env", fakeEnv + "=1", self}}
	return &Player{Program: program, Dir: dir}
}

func TestReplay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, problem string }{
		{"the same", "# x\n<- {\"QMP\": {}}\n-> echo one\n<- one\n!echo two\n!> two\n-> die\n<-eof\nexit\n!> dying as told\n!status 0\n", ""},
		{"another line", "<- {\"QMP\": {}}\n-> echo one\n<- two\n", "awaited: <- two\ncame:    one"},
		{"one too many", "<- {\"QMP\": {}}\n-> twice one\n<- one\n-> echo two\n<- two\n", "awaited: <- two\ncame:    one"},
		{"one too many at the end", "<- {\"QMP\": {}}\n-> twice one\n<- one\n", "nothing more was awaited"},
		{"no CR", "<- {\"QMP\": {}}\n-> bare one\n<- one\n", "one<no CR>"},
		{"the end instead", "<- {\"QMP\": {}}\n-> die\n<- one\n", "the connection has ended"},
		{"output differs", "nodaemon\n!echo one\n!> two\n", "awaited: !> two\ncame:    !> one"},
		{"status differs", "nodaemon\n!exit 3\n", "came:    !status 3"},
		{"its own complaint", "nodaemon\ncli --bogus\n!> ${PROG}: unrecognized option '--bogus'\n!status 1\n", ""},
		{"variables", "<- {\"QMP\": {}}\n-> echo ${DIR}/x\n<- ${DIR}/x\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f, err := Parse("x.qmp", c.text)
			if err != nil {
				t.Fatal(err)
			}
			err = fakePlayer(t).Replay(f)
			switch {
			case c.problem == "" && err != nil:
				t.Error(err)
			case c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem)):
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestNeed(t *testing.T) {
	t.Parallel()
	f, err := Parse("x.qmp", "need false\n<- never\n")
	if err != nil {
		t.Fatal(err)
	}
	if err := fakePlayer(t).Replay(f); !errors.Is(err, ErrSkip) {
		t.Errorf("got %v", err)
	}
}

// TestRecord shows that a recording can be replayed, and that recording again
// changes nothing.
func TestRecord(t *testing.T) {
	t.Parallel()
	f, err := Parse("x.qmp", "# x\n-> echo {\"return\": 1}\n!echo out; exit 2\nshutwr A\n")
	if err != nil {
		t.Fatal(err)
	}
	if err := fakePlayer(t).Record(f); err != nil {
		t.Fatal(err)
	}
	want := "# x\n<- {\"QMP\": {}}\n-> echo {\"return\": 1}\n<- {\"return\": 1}\n!echo out; exit 2\n!> out\n!status 2\nshutwr A\n<-eof\n"
	if got := f.Format(); got != want {
		t.Fatalf("recorded:\n%s\nwant:\n%s", got, want)
	}
	again, err := Parse("x.qmp", want)
	if err != nil {
		t.Fatal(err)
	}
	if err := fakePlayer(t).Replay(again); err != nil {
		t.Error(err)
	}
}
