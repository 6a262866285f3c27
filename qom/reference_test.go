package qom

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// reference returns the path of the reference daemon, version 10.0.x. Without
// one the test is skipped, except in CI, which installs it.
func reference(t *testing.T) string {
	t.Helper()
	return daemon.Reference(t).Storage[0]
}

// pair is the reference and a tree of ours in the same folder, which are told
// the same.
type pair struct {
	t       *testing.T
	tree    *Tree
	monitor *daemon.Monitor
}

func newPair(t *testing.T, dir string) *pair {
	t.Helper()
	p := &pair{t, newTree(), daemon.Reference(t).StorageMonitor(t, dir)}
	if err := p.tree.Container("chardevs").AddChild("c0", p.tree.NewObject("chardev-socket", nil)); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *pair) ask(text string) string { return string(p.monitor.Ask([]byte(text))) }

// same sends a command to both and compares the replies. args is JSON without
// the outer braces, in which ' stands for ".
func (p *pair) same(command, args string) {
	p.t.Helper()
	args = "{" + strings.ReplaceAll(args, "'", `"`) + "}"
	theirs := p.ask(`{"execute": "` + command + `", "arguments": ` + args + `}`)
	v, err := qjson.Parse([]byte(args))
	if err != nil {
		p.t.Fatal(err)
	}
	ours := p.answer(command, v)
	if ours != theirs {
		p.t.Errorf("%s %s\nours   %s\ntheirs %s", command, args, ours, theirs)
	}
}

// answer prints what the tree says as a reply of the monitor.
func (p *pair) answer(command string, args qjson.Value) string {
	text, err := p.run(command, args)
	if err != nil {
		e := qerr.From(err)
		return `{"error": {"class": "` + string(e.Class) + `", "desc": ` + string(qjson.AppendString(nil, e.Desc)) + `}}`
	}
	return `{"return": ` + text + `}`
}

func (p *pair) run(command string, args qjson.Value) (string, error) {
	str := func(name string) string { return args.Get(name).Str() }
	switch command {
	case "object-add":
		return "{}", p.tree.Add(str("qom-type"), str("id"), args)
	case "object-del":
		return "{}", p.tree.Del(str("id"))
	case "qom-list":
		infos, err := p.tree.List(str("path"))
		return printProperties(infos), err
	case "qom-list-properties":
		infos, err := p.tree.TypeProperties(str("typename"))
		return printProperties(infos), err
	case "qom-list-types":
		return printTypes(p.tree.Types(str("implements"), args.Get("abstract").Bool())), nil
	case "qom-get":
		text, err := p.tree.Get(str("path"), str("property"))
		return string(text), err
	case "qom-set":
		return "{}", p.tree.Set(str("path"), str("property"), args.Get("value"))
	}
	return "", qerr.New("unknown command %s", command)
}

func printProperties(infos []PropertyInfo) string {
	var parts []string
	for _, p := range infos {
		parts = append(parts, fmt.Sprintf(`{"name": "%s", "type": "%s"}`, p.Name, p.Type))
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

func printTypes(infos []TypeInfo) string {
	var parts []string
	for _, t := range infos {
		var members []string
		if t.Abstract {
			members = append(members, `"abstract": true`)
		}
		members = append(members, fmt.Sprintf(`"name": "%s"`, t.Name))
		if t.Parent != "" {
			members = append(members, fmt.Sprintf(`"parent": "%s"`, t.Parent))
		}
		parts = append(parts, "{"+strings.Join(members, ", ")+"}")
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

func TestReferenceTypes(t *testing.T) {
	t.Parallel()
	p := newPair(t, t.TempDir())
	for _, implements := range []string{"object", "interface", "user-creatable", "chardev", "chardev-fd", "authz", "secret", "nope"} {
		p.same("qom-list-types", `'implements': '`+implements+`'`)
		p.same("qom-list-types", `'abstract': true, 'implements': '`+implements+`'`)
	}
	p.same("qom-list-types", ``)
	p.same("qom-list-types", `'abstract': true`)
	p.same("qom-list-properties", `'typename': 'nope'`)
	for _, typ := range p.tree.Types("", true) {
		if typ.Name != "chardev-socket" { // its properties are not this package's
			p.same("qom-list-properties", `'typename': '`+typ.Name+`'`)
		}
	}
}

func TestReferencePaths(t *testing.T) {
	t.Parallel()
	p := newPair(t, t.TempDir())
	for _, add := range []string{`'qom-type': 'iothread', 'id': 'io0'`, `'qom-type': 'iothread', 'id': 'c0'`, `'qom-type': 'secret', 'id': 'objects', 'data': 'x'`} {
		p.same("object-add", add)
	}
	for _, path := range []string{
		"", "/", "//", "objects", "/objects", "/objects/", "objects/objects", "io0", "/io0", "io0/", "objects/io0", "//objects///io0//",
		"c0", "/chardevs", "chardevs", "backend", ".", "..", "/..", "type", "/objects/io0/poll-grow", "/machine", "nope",
	} {
		p.same("qom-list", `'path': '`+path+`'`)
		p.same("qom-get", `'path': '`+path+`', 'property': 'type'`)
		p.same("qom-set", `'path': '`+path+`', 'property': 'nope', 'value': 1`)
	}
	p.same("qom-get", `'path': '/', 'property': 'objects'`)
	p.same("qom-get", `'path': '/objects', 'property': 'io0'`)
	p.same("qom-set", `'path': '/objects', 'property': 'io0', 'value': 'x'`)
	for _, id := range []string{"nope", "", "c0", "c0", "type", "/objects/io0", "io0/", "objects"} {
		p.same("object-del", `'id': '`+id+`'`)
	}
	p.same("qom-list", `'path': '/objects'`)
}

func TestReferenceIOThread(t *testing.T) {
	t.Parallel()
	p := newPair(t, t.TempDir())
	for _, props := range []string{
		``, `, 'poll-grow': -1`, `, 'poll-grow': -1, 'poll-shrink': -1, 'poll-max-ns': -1, 'aio-max-batch': -1, 'thread-pool-min': -1`,
		`, 'poll-max-ns': -1, 'aio-max-batch': -1`, `, 'thread-pool-min': -1, 'thread-pool-max': -1`, `, 'thread-pool-min': 70`,
		`, 'thread-pool-max': 0`, `, 'thread-pool-max': 2147483648`, `, 'thread-pool-min': 70, 'thread-pool-max': 80, 'poll-max-ns': 0`,
	} {
		p.same("object-add", `'qom-type': 'iothread', 'id': 'io'`+props)
		p.same("object-del", `'id': 'io'`)
	}
	p.same("object-add", `'qom-type': 'iothread', 'id': 'io'`)
	p.same("object-add", `'qom-type': 'iothread', 'id': 'io', 'poll-grow': -1`)
	p.same("object-add", `'qom-type': 'iothread', 'id': 'io'`)
	p.same("object-add", `'qom-type': 'iothread', 'id': 'type'`)
	for _, id := range []string{"1", "", "a b", "a/b", "_a"} {
		p.same("object-add", `'qom-type': 'iothread', 'id': '`+id+`'`)
	}
	for _, name := range []string{"aio-max-batch", "thread-pool-min", "thread-pool-max", "poll-max-ns", "poll-grow", "poll-shrink", "type", "nope"} {
		for _, value := range []string{"7", "-1", "'7'", "7.0", "null", "true", "[]", "{}", "100", "9223372036854775807", "9223372036854775808", "0", "5"} {
			p.same("qom-set", `'path': '/objects/io', 'property': '`+name+`', 'value': `+value)
			p.same("qom-get", `'path': '/objects/io', 'property': '`+name+`'`)
		}
	}
	p.same("object-add", `'qom-type': 'main-loop', 'id': 'ml', 'aio-max-batch': 3`)
	p.same("object-add", `'qom-type': 'main-loop', 'id': 'ml2'`)
	p.same("qom-get", `'path': 'ml', 'property': 'aio-max-batch'`)
	p.same("qom-set", `'path': 'ml', 'property': 'thread-pool-max', 'value': 0`)
	p.same("object-del", `'id': 'ml'`)
}

func TestReferenceSecret(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := newPair(t, dir)
	file := func(name, content string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	p.same("object-add", `'qom-type': 'secret', 'id': 'key', 'format': 'base64', 'data': 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8='`)
	p.same("object-add", `'qom-type': 'secret', 'id': 'short', 'data': 'AAA'`)
	p.same("object-add", `'qom-type': 'iothread', 'id': 'io'`)
	const iv = `'iv': 'AAAAAAAAAAAAAAAAAAAAAA=='`
	for _, props := range []string{
		``, `'data': ''`, `'data': 'a', 'file': 'b', 'keyid': 'nope'`, `'keyid': 'nope'`, `'file': '` + file("s.txt", "hunter2") + `'`,
		`'file': '` + file("empty", "") + `'`, `'file': ''`, `'file': '` + dir + `'`, `'file': '` + dir + `/nope'`, `'file': '/proc/self/mem'`,
		`'format': 'base64', 'file': '` + file("nul", "\xff\x00") + `'`, `'format': 'base64', 'data': '***'`, `'format': 'base64', 'data': 'a'`,
		`'format': 'base64', 'data': 'aGVs bG8='`, `'format': 'base64', 'data': 'aGVs\nbG8='`, `'format': 'base64', 'data': 'AAAA\u0000'`,
		`'data': 'a', 'keyid': 'nope'`, `'data': 'a', 'keyid': 'io'`, `'data': 'a', 'keyid': 'short'`, `'data': 'a', 'keyid': 'key'`,
		`'data': 'a', 'keyid': 'key', 'iv': '***'`, `'data': '***', 'format': 'base64', 'keyid': 'key', 'iv': ''`,
		`'data': 'a', 'keyid': 'key', ` + iv, `'data': '***', 'format': 'base64', 'keyid': 'key', ` + iv, `'data': '', 'keyid': 'key', ` + iv,
		`'data': 'kWhEh8NMNFbrTpAc74hKHg==', 'format': 'base64', 'keyid': 'key', ` + iv, // "hello", well padded
		`'data': 'kWhEh8NMNFbrTpAc74hKHg==', 'keyid': 'key', ` + iv,
		`'data': 'kWhEh8NMNFbrTpAc74hK', 'format': 'base64', 'keyid': 'key', ` + iv,
		`'data': '8pAAtipJn9Cp85pq3S53gA==', 'format': 'base64', 'keyid': 'key', ` + iv, // ends in 0
		`'data': 'JI0V3rZpP/jY8hlsHXnWRQ==', 'format': 'base64', 'keyid': 'key', ` + iv, // ends in 17
		`'data': 'Kwpuo3nrBeIf7NYCYoBv0Q==', 'format': 'base64', 'keyid': 'key', ` + iv, // ends in 1, 2
	} {
		sep := ""
		if props != "" {
			sep = ", "
		}
		p.same("object-add", `'qom-type': 'secret', 'id': 's'`+sep+props)
		p.same("object-del", `'id': 's'`)
	}
	p.same("object-add", `'qom-type': 'secret', 'id': 's', 'data': 'x'`)
	for _, name := range []string{"data", "file", "keyid", "iv", "format", "type"} {
		for _, value := range []string{"'zz'", "5", "null"} {
			p.same("qom-get", `'path': 's', 'property': '`+name+`'`)
			p.same("qom-set", `'path': 's', 'property': '`+name+`', 'value': `+value)
		}
	}
}

func TestReferenceThrottleGroup(t *testing.T) {
	t.Parallel()
	p := newPair(t, t.TempDir())
	const big = "1099511627776"
	for _, limits := range []string{
		``, `'bps-total': 5, 'bps-read': 5, 'iops-total': -1`, `'bps-total': 5, 'bps-read': 5, 'iops-size': 4`, `'bps-total-max-length': 0, 'bps-total': -1`,
		`'bps-total-max-length': 0, 'iops-size': 4`, `'bps-total-max-length': 0, 'bps-total-max': 4`, `'bps-total-max': 5, 'bps-read-max': 5`,
		`'bps-total': 5, 'bps-read-max': 5`, `'bps-total': 5, 'iops-read': 5`, `'bps-total': 5, 'bps-total-max': 4`, `'bps-total': 5, 'bps-total-max': 5`,
		`'bps-total': 5, 'bps-total-max': 50, 'bps-total-max-length': 4294967295`, `'bps-total': 5, 'bps-total-max': 50, 'bps-total-max-length': 4294967296`,
		`'bps-total': 5, 'bps-total-max': 100000000000000, 'bps-total-max-length': 11`, `'bps-total': 5, 'bps-total-max': 100000000000000, 'bps-total-max-length': 10`,
		`'bps-total-max': 1000000000000000, 'bps-total-max-length': 2`, `'bps-total': 1000000000000000, 'bps-total-max': 900000000000000, 'bps-total-max-length': 2`,
		`'bps-total': 5, 'bps-total-max-length': 2`, `'bps-total': 5, 'bps-total-max-length': -1`, `'bps-total': 1000000000000001`,
		`'iops-size': 4, 'iops-read': 1`, `'iops-size': 4, 'iops-total-max': 1`, `'iops-size': -4, 'iops-read': 1`,
		`'iops-read': -1, 'bps-write-max-length': 5`, `'iops-read': -1, 'iops-total-max-length': 0`, `'bps-write': -1, 'bps-read-max-length': 0`,
		`'iops-read-max-length': ` + big + `, 'bps-write-max-length': ` + big + `, 'bps-read-max-length': ` + big,
		`'iops-read-max-length': ` + big + `, 'iops-total-max-length': ` + big,
	} {
		p.same("object-add", `'qom-type': 'throttle-group', 'id': 'tg', 'limits': {`+limits+`}`)
		p.same("qom-get", `'path': 'tg', 'property': 'limits'`)
		p.same("object-del", `'id': 'tg'`)
	}
	for _, props := range []string{
		`, 'x-bps-total': -1`, `, 'x-bps-total-max-length': 4294967296`, `, 'x-bps-total-max-length': 0`, `, 'x-bps-total': 5, 'x-bps-read': 6`,
		`, 'x-iops-size': 1125899906842624, 'x-iops-total': 1`, `, 'limits': {'bps-total': 1, 'bps-total-max': 10}, 'x-bps-total': 9`,
	} {
		p.same("object-add", `'qom-type': 'throttle-group', 'id': 'tg'`+props)
		p.same("qom-get", `'path': 'tg', 'property': 'x-iops-size'`)
		p.same("qom-get", `'path': 'tg', 'property': 'limits'`)
		p.same("object-del", `'id': 'tg'`)
	}
	p.same("object-add", `'qom-type': 'throttle-group', 'id': 'tg', 'limits': {'bps-total': 9, 'bps-total-max': 10}`)
	p.same("qom-set", `'path': 'tg', 'property': 'x-bps-total', 'value': 'x'`)
	for _, value := range []string{
		`{'bps-total': 0}`, `{'bps-total': 0, 'bps-total-max': 0}`, `{'bps-read': 5}`, `5`, `{'bps-read': 'x'}`, `{'bps-total': 1.5, 'iops-total': 'x'}`,
		`{'x': 'x', 'y': 1, 'z': 1}`, `{'zz': 1, 'iops-write': 'x'}`, `{'iops-total': 5, 'nope': 1, 'bps-total': 1}`, `{'iops-total': 5}`, `{}`,
	} {
		p.same("qom-set", `'path': 'tg', 'property': 'limits', 'value': `+value)
		p.same("qom-get", `'path': 'tg', 'property': 'limits'`)
	}
}

func TestReferenceAuthz(t *testing.T) {
	t.Parallel()
	p := newPair(t, t.TempDir())
	p.same("object-add", `'qom-type': 'authz-simple', 'id': 'a', 'identity': 'x'`)
	p.same("qom-set", `'path': 'a', 'property': 'identity', 'value': 'y'`)
	p.same("qom-set", `'path': 'a', 'property': 'identity', 'value': 5`)
	p.same("qom-get", `'path': 'a', 'property': 'identity'`)
	p.same("object-add", `'qom-type': 'authz-listfile', 'id': 'f', 'filename': 'x'`)
	p.same("object-add", `'qom-type': 'authz-list', 'id': 'l', 'policy': 'allow', 'rules': [{'match': 'fred', 'policy': 'allow', 'format': 'glob'}, {'match': 'bob', 'policy': 'deny'}]`)
	p.same("object-add", `'qom-type': 'authz-list', 'id': 'l2'`)
	for _, name := range []string{"policy", "rules"} {
		p.same("qom-get", `'path': 'l', 'property': '`+name+`'`)
		p.same("qom-get", `'path': 'l2', 'property': '`+name+`'`)
	}
	p.same("qom-set", `'path': 'l2', 'property': 'policy', 'value': 'x'`)
	for _, value := range []string{
		`[{'match': 'fred', 'policy': 'allow'}]`, `[{'match': 'fred', 'policy': 'allowx'}]`, `[{'match': 5}]`, `[{'x': 5}]`, `[{'match': 'a'}]`, `5`, `[5]`,
		`[{'match': 'a', 'policy': 'deny', 'format': 'x'}]`, `[{'match': 'a', 'policy': 'deny'}, {'match': 'a', 'policy': 'deny', 'x': 1}]`,
	} {
		p.same("qom-set", `'path': 'l2', 'property': 'rules', 'value': `+value)
		p.same("qom-get", `'path': 'l2', 'property': 'rules'`)
	}
}

// TestReferenceOrder adds and deletes objects at random, so that the hash
// table of /objects grows and shrinks, and compares the listings.
func TestReferenceOrder(t *testing.T) {
	t.Parallel()
	p := newPair(t, t.TempDir())
	rnd := rand.New(rand.NewPCG(1, 2))
	var ids []string
	for step := range 3000 {
		if rnd.IntN(10) < 4+4*(step/1000%2) && len(ids) > 0 {
			i := rnd.IntN(len(ids))
			p.same("object-del", `'id': '`+ids[i]+`'`)
			ids = slices.Delete(ids, i, i+1)
		} else {
			ids = append(ids, fmt.Sprintf("o%x", rnd.IntN(1<<20)))
			p.same("object-add", `'qom-type': 'authz-simple', 'identity': '', 'id': '`+ids[len(ids)-1]+`'`)
		}
		p.same("qom-list", `'path': '/objects'`)
		if t.Failed() {
			return
		}
	}
}

func TestReferenceHelp(t *testing.T) {
	t.Parallel()
	prog := reference(t)
	tree := newTree()
	help := func(option string) string {
		out, err := exec.Command(prog, "--object", option).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	if ours, theirs := tree.CreatableHelp(), help("help"); ours != theirs {
		t.Errorf("ours\n%stheirs\n%s", ours, theirs)
	}
	for _, typ := range tree.Types("user-creatable", false) {
		ours, _ := tree.PropertyHelp(typ.Name)
		if theirs := help(typ.Name + ",help"); ours != theirs {
			t.Errorf("ours\n%stheirs\n%s", ours, theirs)
		}
	}
}
