package schema

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/qmpblock/qmpblock/qjson"
)

func parse(tb testing.TB, text string) qjson.Value {
	tb.Helper()
	v, err := qjson.Parse([]byte(text))
	if err != nil {
		tb.Fatalf("%s: %v", text, err)
	}
	return v
}

func TestTableAnswersWhatIsRegistered(t *testing.T) {
	t.Parallel()
	table := NewTable()
	table.Quit(func(context.Context) error { return nil })
	table.BlockResize(func(_ context.Context, args *BlockResizeArguments) error {
		if args.Size == 13 {
			return errors.New("bad luck")
		}
		return nil
	})
	table.QueryVersion(func(context.Context) (*VersionInfo, error) {
		return &VersionInfo{Qemu: VersionTriple{Major: 10, Micro: 2}, Package: "p"}, nil
	})
	table.RingbufRead(func(_ context.Context, args *RingbufReadArguments) (string, error) {
		return args.Device + "\n", nil
	})
	var names []string
	for _, c := range table.Commands() {
		names = append(names, c.Name)
	}
	if want := []string{"block_resize", "ringbuf-read", "query-version", "quit"}; !slices.Equal(names, want) {
		t.Errorf("commands %q, not %q", names, want)
	}
	if table.Lookup("blockdev-add") != nil {
		t.Error("blockdev-add was not registered")
	}
	for _, c := range []struct{ command, args, reply, complaint string }{
		{"quit", `{}`, `{}`, ""},
		{"quit", `{"x": 1}`, "", "Parameter 'x' is unexpected"},
		{"block_resize", `{"size": 1}`, `{}`, ""},
		{"block_resize", `{"size": 13}`, "", "bad luck"},
		{"block_resize", `{}`, "", "Parameter 'size' is missing"},
		{"query-version", `{}`, `{"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "p"}`, ""},
		{"ringbuf-read", `{"device": "d", "size": 1}`, `"d\n"`, ""},
	} {
		out, err := table.Lookup(c.command).Run(context.Background(), parse(t, c.args), []byte("> "))
		switch {
		case err != nil && err.Error() != c.complaint, err == nil && c.complaint != "":
			t.Errorf("%s %s: error %v, not %q", c.command, c.args, err, c.complaint)
		case string(out) != "> "+c.reply:
			t.Errorf("%s %s: %s, not > %s", c.command, c.args, out, c.reply)
		}
	}
	if _, err := table.Lookup("block_resize").Run(context.Background(), qjson.Value{}, nil); err == nil || err.Error() != "Parameter 'size' is missing" {
		t.Errorf("absent arguments: %v", err)
	}
}

// names are those of commands and events that introspection shows.
func names(t *Table) []string {
	var list []string
	for _, e := range t.Introspect() {
		if e.MetaType == SchemaMetaTypeCommand || e.MetaType == SchemaMetaTypeEvent {
			list = append(list, e.Name)
		}
	}
	return list
}

func TestIntrospectionOfSome(t *testing.T) {
	t.Parallel()
	table := NewTable()
	table.QueryCommands(func(context.Context) ([]*CommandInfo, error) { return nil, nil })
	table.Emits(&StopEvent{}, (*BlockWriteThresholdEvent)(nil))
	want := `[{"name": "STOP", "meta-type": "event", "arg-type": "0"}, ` +
		`{"name": "BLOCK_WRITE_THRESHOLD", "meta-type": "event", "arg-type": "1"}, ` +
		`{"name": "query-commands", "ret-type": "[2]", "meta-type": "command", "arg-type": "0"}, ` +
		`{"name": "0", "members": [], "meta-type": "object"}, ` +
		`{"name": "1", "members": [{"name": "node-name", "type": "str"}, {"name": "amount-exceeded", "type": "int"}, {"name": "write-threshold", "type": "int"}], "meta-type": "object"}, ` +
		`{"name": "[2]", "element-type": "2", "meta-type": "array"}, ` +
		`{"name": "2", "members": [{"name": "name", "type": "str"}], "meta-type": "object"}, ` +
		`{"name": "str", "json-type": "string", "meta-type": "builtin"}, ` +
		`{"name": "int", "json-type": "int", "meta-type": "builtin"}]`
	if got := string(returnList(nil, table.Introspect(), Newest)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestOlderTableHidesWhatIsNewer(t *testing.T) {
	t.Parallel()
	table := checker(V7_2, nil)
	if table.Lookup("blockdev-set-active") != nil || slices.Contains(names(table), "blockdev-set-active") {
		t.Error("blockdev-set-active came with 10.0")
	}
	for request, want := range map[string]string{
		`{"execute": "blockdev-add", "arguments": {"driver": "null-co", "active": true}}`:                               "Parameter 'active' is unexpected",
		`{"execute": "blockdev-add", "arguments": {"driver": "qcow2", "file": "f", "discard-no-unref": true}}`:          "Parameter 'discard-no-unref' is unexpected",
		`{"execute": "object-add", "arguments": {"qom-type": "iommufd", "id": "x"}}`:                                    "Parameter 'qom-type' does not accept value 'iommufd'",
		`{"execute": "chardev-add", "arguments": {"id": "h", "backend": {"type": "hub", "data": {"chardevs": ["c"]}}}}`: "Parameter 'type' does not accept value 'hub'",
		`{"execute": "blockdev-add", "arguments": {"driver": "qcow2", "file": "f", "lazy-refcounts": true}}`:            "",
	} {
		if got := complaint(t, table, []byte(request)); got != want {
			t.Errorf("%s: %q, not %q", request, got, want)
		}
	}
	if _, err := DecodeAs[BlockdevOptions](parse(t, `{"driver": "null-co", "active": true}`), QMP, V9_2); err == nil {
		t.Error("9.2 knows active")
	}
}

func TestOlderTableAnswersWithoutWhatIsNewer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		version Version
		want    bool
	}{{V7_2, false}, {V10_0, true}} {
		table := NewTableFor(c.version)
		table.QueryNamedBlockNodes(func(context.Context, *QueryNamedBlockNodesArguments) ([]*BlockDeviceInfo, error) {
			return []*BlockDeviceInfo{{}}, nil
		})
		out, err := table.Lookup("query-named-block-nodes").Run(context.Background(), qjson.Value{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for e := range parse(t, string(out)).Elems() {
			if e.Get("active").Exists() != c.want {
				t.Errorf("%v: %s", c.version, out)
			}
		}
		event := parse(t, string(table.AppendData(nil, &BlockIoErrorEvent{})))
		if event.Get("qom-path").Exists() != c.want {
			t.Errorf("%v: wrong event", c.version)
		}
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	var e Event = &ShutdownEvent{Guest: true, Reason: ShutdownCauseHostQmpQuit}
	if got := string(e.AppendData(nil)); e.EventName() != "SHUTDOWN" || got != `{"guest": true, "reason": "host-qmp-quit"}` {
		t.Errorf("%s %s", e.EventName(), got)
	}
	if e = (&StopEvent{}); len(e.AppendData(nil)) != 0 {
		t.Error("STOP has no data")
	}
}

func TestEnums(t *testing.T) {
	t.Parallel()
	if v, ok := ParseEnum[BlockdevDriver]("host_device"); !ok || v != BlockdevDriverHostDevice || v.String() != "host_device" {
		t.Errorf("%v %v", v, ok)
	}
	if _, ok := ParseEnum[BlockdevDriver]("bogus"); ok {
		t.Error("bogus is a driver")
	}
	if got := EnumNames[OnOffAuto](); !slices.Equal(got, []string{"auto", "on", "off"}) {
		t.Error(got)
	}
	if got := BlockdevDriver(255).String(); got != "" {
		t.Errorf("255 is %q", got)
	}
}
