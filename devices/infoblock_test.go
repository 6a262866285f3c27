package devices_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/qmpblock/qmpblock/devices"
	"github.com/qmpblock/qmpblock/qjson"
)

// TestInfoBlock makes texts of recorded replies and compares them with those
// that the reference made of the same.
func TestInfoBlock(t *testing.T) {
	local := time.Local
	time.Local = time.UTC // dates of snapshots were recorded there
	defer func() { time.Local = local }()
	var commands []string
	answers := make(map[string][]string)
	for _, line := range strings.Split(strings.TrimSuffix(read(t, "testdata/hmp/infoblock.txt"), "\n"), "\n") {
		switch {
		case strings.HasPrefix(line, "#"):
		case !strings.HasPrefix(line, indent):
			commands = append(commands, line)
		default:
			last := commands[len(commands)-1]
			answers[last] = append(answers[last], strings.TrimPrefix(line, indent))
		}
	}
	reply := func(command string) func() (qjson.Value, error) {
		return func() (qjson.Value, error) {
			v, err := qjson.Parse([]byte(answers[command][0]))
			return v.Get("return"), err
		}
	}
	for _, command := range commands {
		args, ok := strings.CutPrefix(command, "info block")
		if !ok {
			continue
		}
		text, err := devices.InfoBlock(args, reply("query-block"), reply("query-named-block-nodes"), io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		if text != "" {
			got = strings.Split(strings.TrimSuffix(text, "\r\n"), "\r\n")
		}
		if diff := cmp.Diff(answers[command], got); diff != "" {
			t.Errorf("%s (- wanted, + given):\n%s", command, diff)
		}
	}
}

func TestInfoBlockMistakes(t *testing.T) {
	t.Parallel()
	never := func() (qjson.Value, error) {
		t.Error("asked for nothing")
		return qjson.Value{}, nil
	}
	got, err := devices.InfoBlock("a b", never, never, io.Discard)
	want := "block: extraneous characters at the end of line\r\nTry \"help info block\" for more information\r\n"
	if got != want || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
