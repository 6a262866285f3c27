package schema

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os/exec"
	"slices"
	"testing"

	"github.com/qmpblock/qmpblock/qjson"
	programs "github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// referenceProgram returns the path of the reference daemon, version 10.0.x.
// Without one the test is skipped, except in CI, which installs it.
func referenceProgram(t *testing.T) string {
	t.Helper()
	return programs.Reference(t).Storage[0]
}

// daemon is a reference daemon whose monitor is its input and output.
type daemon struct {
	in  io.WriteCloser
	out *bufio.Reader
}

func startDaemon(t *testing.T) *daemon {
	t.Helper()
	cmd := exec.Command(referenceProgram(t), "--chardev", "stdio,id=c0", "--monitor", "c0")
	cmd.Dir = t.TempDir()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		in.Close()
		cmd.Wait()
	})
	d := &daemon{in, bufio.NewReader(out)}
	d.line(t)
	d.ask(t, []byte(`{"execute": "qmp_capabilities"}`))
	return d
}

func (d *daemon) line(t *testing.T) string {
	t.Helper()
	line, err := d.out.ReadString('\n')
	if err != nil {
		t.Fatalf("the reference has ended: %v", err)
	}
	return line
}

// ask sends a request and returns the reply's error, "" for none.
func (d *daemon) ask(t *testing.T, request []byte) string {
	t.Helper()
	if _, err := d.in.Write(append(request, '\n')); err != nil {
		t.Fatal(err)
	}
	var reply struct {
		Error struct{ Desc string }
		Event string
	}
	for {
		if err := json.Unmarshal([]byte(d.line(t)), &reply); err != nil {
			t.Fatal(err)
		}
		if reply.Event == "" {
			return reply.Error.Desc
		}
	}
}

// inventor makes up arguments from the schema, mistakes included.
type inventor struct {
	*rand.Rand
	// risk is the chance of a mistake at each value, in percent.
	risk int
}

func (r *inventor) mistake() bool { return r.IntN(100) < r.risk }

var odd = []string{
	"null", "true", "0", "-1", "1.5", "256", "65536", "4294967296", "2147483648", "9223372036854775807",
	"9223372036854775808", "18446744073709551615", "18446744073709551616", `""`, `"x"`, "[]", "{}", `["x", 1]`, `{"x": {}}`,
}

func (r *inventor) pick(list []string) string { return list[r.IntN(len(list))] }

// value appends a value of a type.
func (r *inventor) value(dst []byte, typ, depth int) []byte {
	if r.mistake() {
		return append(dst, r.pick(odd)...)
	}
	t := &schemaTypes[typ]
	switch t.meta {
	case SchemaMetaTypeBuiltin:
		return append(dst, r.builtin(t.json)...)
	case SchemaMetaTypeEnum:
		return fmt.Appendf(dst, "%q", t.members[r.IntN(len(t.members))].name)
	case SchemaMetaTypeAlternate:
		return r.value(dst, r.alternative(t, depth), depth+1)
	case SchemaMetaTypeArray:
		dst = append(dst, '[')
		for i := range r.IntN(3) {
			if i > 0 {
				dst = append(dst, ", "...)
			}
			dst = r.value(dst, t.element, depth+1)
		}
		return append(dst, ']')
	}
	return r.object(dst, t, depth)
}

// alternative avoids endless recursion.
func (r *inventor) alternative(t *schemaType, depth int) int {
	for range 20 {
		m := t.members[r.IntN(len(t.members))]
		if depth < 4 || schemaTypes[m.typ].meta != SchemaMetaTypeObject {
			return m.typ
		}
	}
	return t.members[0].typ
}

func (r *inventor) builtin(json JSONType) string {
	switch json {
	case JSONTypeBoolean:
		return r.pick([]string{"true", "false"})
	case JSONTypeInt, JSONTypeNumber:
		return r.pick([]string{"0", "1", "4096"})
	case JSONTypeNull:
		return "null"
	}
	return `"x"`
}

func (r *inventor) object(dst []byte, t *schemaType, depth int) []byte {
	members := map[string]string{}
	r.members(members, t.members, depth)
	for _, v := range t.variants {
		if members[t.tag] == fmt.Sprintf("%q", v.name) {
			r.members(members, schemaTypes[v.typ].members, depth)
		}
	}
	for r.mistake() || len(members) > 0 && r.IntN(400) == 0 {
		members[r.name()] = "1"
	}
	return r.appendMap(dst, members)
}

// name makes up the name of a member.
func (r *inventor) name() string {
	name := make([]byte, 1+r.IntN(8))
	for i := range name {
		name[i] = "abcdefghijklmnopqrstuvwxyz-_0123456789"[r.IntN(38)]
	}
	return string(name)
}

// appendMap appends an object, its members in random order.
func (r *inventor) appendMap(dst []byte, members map[string]string) []byte {
	names := slices.Sorted(maps.Keys(members))
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	dst = append(dst, '{')
	for _, name := range names {
		dst = append(appendKey(dst, fmt.Sprintf("%q: ", name)), members[name]...)
	}
	return append(dst, '}')
}

func (r *inventor) members(into map[string]string, ms []schemaMember, depth int) {
	for _, m := range ms {
		if m.optional && (depth > 5 || r.IntN(3) > 0) || r.mistake() {
			continue
		}
		into[m.name] = string(r.value(nil, m.typ, depth+1))
	}
}

// deepCommands have arguments worth making mistakes in.
var deepCommands = []ordinal{
	commandBlockdevAdd, commandBlockdevReopen, commandObjectAdd, commandChardevAdd,
}

// request makes up a request that cannot succeed: it has a member too many.
func (r *inventor) request() []byte {
	for {
		top := &schemaTops[r.IntN(len(schemaTops))]
		if i := r.IntN(2 * len(deepCommands)); i < len(deepCommands) {
			top = &schemaTops[deepCommands[i]]
		}
		if top.meta != SchemaMetaTypeCommand || slices.Contains(systemOnly, top.name) {
			continue
		}
		args := string(r.object(nil, &schemaTypes[top.arg], 0))
		mark := fmt.Sprintf("%q: 0", r.name()+"zz")
		if args != "{}" {
			mark += ", "
		}
		return fmt.Appendf(nil, `{"execute": %q, "arguments": {%s%s}`, top.name, mark, args[1:])
	}
}

// TestMistakesAsTheReference sends made-up requests to the reference daemon
// and compares its complaints with ours.
func TestMistakesAsTheReference(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	table := checker(Newest, nil)
	for seed := range uint64(3000) {
		r := &inventor{rand.New(rand.NewPCG(seed, 1)), int(seed % 7)}
		request := r.request()
		if _, err := qjson.Parse(request); err != nil {
			continue // a member twice
		}
		ours, theirs := complaint(t, table, request), d.ask(t, request)
		if ours != theirs {
			t.Errorf("seed %d: %s\n got: %s\nwant: %s", seed, request, ours, theirs)
		}
	}
}

// TestUnexpectedAsTheReference has many members too many, of which the
// reference names one.
func TestUnexpectedAsTheReference(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	table := checker(Newest, nil)
	for seed := range uint64(1500) {
		r := &inventor{rand.New(rand.NewPCG(seed, 2)), 0}
		members := map[string]string{}
		r.members(members, schemaTypes[schemaTops[commandBlockdevAdd].arg].members, 0)
		members["driver"] = `"qcow2"`
		members["file"] = `"x"`
		for range 1 + r.IntN(int(2+seed/20)) {
			members[r.name()+"z"] = "1"
		}
		request := append(r.appendMap([]byte(`{"execute": "blockdev-add", "arguments": `), members), '}')
		ours, theirs := complaint(t, table, request), d.ask(t, request)
		if ours != theirs {
			t.Errorf("seed %d: %d members: %s, not %s", seed, len(members), ours, theirs)
		}
	}
}
