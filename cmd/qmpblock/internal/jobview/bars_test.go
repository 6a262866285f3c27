package jobview

import (
	"io"
	"strings"
	"testing"

	"github.com/creack/pty"
)

// TestBars leaves jobs of each kind on a terminal.
func TestBars(t *testing.T) {
	t.Parallel()
	terminal, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := pty.Setsize(terminal, &pty.Winsize{Rows: 10, Cols: 60}); err != nil {
		t.Fatal(err)
	}
	shown := make(chan string)
	go func() {
		text, _ := io.ReadAll(terminal) // it ends with an error when the other side is closed
		terminal.Close()
		shown <- string(text)
	}()
	b := NewBars(tty)
	for _, j := range []Job{
		{ID: "a", Type: "stream", Status: running, Block: true, Done: 1 << 20, Total: 4 << 20},
		{ID: "b", Type: "mirror", Status: running, Total: 10},
		{ID: "c", Type: "create", Status: running, Total: 1},
		{ID: "b", Type: "mirror", Status: "ready", Done: 10, Total: 10},
		{ID: "c", Type: "create", Status: concluded, Done: 1, Total: 1, Result: Failed, Error: strings.Repeat("No space. ", 10)},
		{ID: "c", Type: "create", Status: running, Total: 1},
		{ID: "c", Type: "create", Status: concluded, Result: Completed},
		{ID: "d", Status: null},
	} {
		b.Show(j)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	tty.Close()
	got := <-shown
	last := got[strings.LastIndex(got, "\x1b")+1:]
	for _, want := range []string{"a stream ", " 25% 1.0 MiB/4.0 MiB ", "b mirror ", "100% 10/10 ready\r\n"} {
		if !strings.Contains(last, want) {
			t.Errorf("%q is missing", want)
		}
	}
	for _, want := range []string{"c: " + strings.Repeat("No space. ", 10) + "\r\n", "1/1 failed\r\n", "0/0 completed\r\n", "d - ", "0/0 null\r\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if t.Failed() {
		t.Logf("%q", got)
	}
}
