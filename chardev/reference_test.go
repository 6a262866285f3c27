package chardev

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/sockets"
	programs "github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// reference returns the path of the reference daemon, version 10.0.x. Without
// one the test is skipped, except in CI, which installs it.
func reference(t *testing.T) string {
	t.Helper()
	return programs.Reference(t).Storage[0]
}

// legacyCases are --chardev options, several separated by a space. ${DIR} is a
// fresh folder, the same for us and the reference.
var legacyCases = strings.Split(strings.TrimSpace(`
null
null,id=
null,id=1
null,id=a/b
null,id=c
null,id=c,id=d
null,noid
id=c
backend=null,id=c
null,id=c,bogus
null,id=c,bogus=1
null,id=c,mux
null,id=c,mux=maybe
null,id=c,nomux
null,,id=c
nul,,l,id=c
id=c,null
null,id=c,path=x,port=5,bogus=0
null,id=c,reconnect=x
null,id=c,reconnect=18446744073709551616
null,id=c,signal=y
null,id=c,logfile=${DIR}/no/x
null,id=c,logfile=
null,id=c,logfile=${DIR}/log,logappend=x
null,id=c null,id=c
null,id=c,mux=on null,id=c
null,id=c,mux=on null,id=c-base
null,id=c-base null,id=c,mux=on
bogus
bogus,id=c
bogus,mux=on,id=c
testdev,id=c
vc,id=c
ringbuf,id=c,size=abc
ringbuf,id=c,size=
ringbuf,id=c,size=-1
ringbuf,id=c,size=1.5k
ringbuf,id=c,size=3
ringbuf,id=c,size=0
ringbuf,id=c,size=1M
memory,id=c,size=100
memory,id=c
socket,id=c
socket,id=c,port=1
socket,id=c,host=localhost
socket,id=c,path=x,host=h
socket,id=c,path=x,fd=3
socket,id=c,host=h,delay=on,nodelay=on
socket,id=c,host=h,port=1,delay=on,nodelay=on
socket,id=c,wait=on
socket,id=c,fd=99
socket,id=c,fd=abc
socket,id=c,fd=-1
socket,id=c,fd=1x
socket,id=c,fd=0x1
socket,id=c,fd=99999999999999999999
socket,id=c,fd=99,server=on,reconnect=5
socket,id=c,path=${DIR}/x.sock
socket,id=c,path=${DIR}/x.sock,server=maybe
socket,id=c,path=${DIR}/x.sock,wait=off
socket,id=c,path=${DIR}/x.sock,server=on,reconnect=1
socket,id=c,path=${DIR}/x.sock,reconnect=1,reconnect-ms=1
socket,id=c,path=${DIR}/x.sock,reconnect-ms=-1
socket,id=c,path=${DIR}/x.sock,reconnect-ms=1
socket,id=c,path=${DIR}/x.sock,server=on,wait=off,reconnect-ms=1
socket,id=c,path=${DIR}/x.sock,tls-creds=x
socket,id=c,path=${DIR}/x.sock,tls-authz=x
socket,id=c,path=${DIR}/x.sock,websocket=on,tls-authz=x
socket,id=c,path=${DIR}/x.sock,websocket=on
socket,id=c,path=${DIR}/x.sock,server,nowait
socket,id=c,path=${DIR}/no/x.sock,server=on,wait=off
socket,id=c,path=${DIR},server=on,wait=off
socket,id=c,path=${DIR}/x.sock,server=on,wait=off socket,id=d,path=${DIR}/x.sock
socket,id=c,path=pppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppp0,server=on,wait=off
socket,id=c,path=,server=on,wait=off
socket,id=c,path=
socket,id=c,host=,port=1
socket,id=c,host=127.0.0.1,port=abc
socket,id=c,host=127.0.0.1,port=-1
socket,id=c,host=127.0.0.1,port=0x1
socket,id=c,host=127.0.0.1,port=18446744073709551617
socket,id=c,host=127.0.0.1,port=1
socket,id=c,host=127.0.0.1,port=65537
socket,id=c,host=127.0.0.1,port=0,server=on,wait=off
socket,id=c,host=127.0.0.1,port=1,to=abc
socket,id=c,host=::1,port=1,ipv4=on
socket,id=c,host=127.0.0.1,port=1,ipv6=on
socket,id=c,host=127.0.0.1,port=1,ipv4=off
socket,id=c,host=127.0.0.1,port=1,ipv4=off,ipv6=off
socket,id=c,host=1.1.1.1,port=1,server=on,wait=off
file,id=c
file,id=c,path=${DIR}/no/such
file,id=c,path=
file,id=c,path=/dev/null,append=maybe
file,id=c,path=/dev/null,input-path=${DIR}/no/such
file,id=c,mux=on
file,id=c,path=/dev/null
pipe,id=c
pipe,id=c,path=${DIR}/no/such
serial,id=c
serial,id=c,path=/no/tty
serial,id=c,path=/dev/null
parallel,id=c
parallel,id=c,path=/no
parallel,id=c,path=/dev/null
udp,id=c
udp,id=c,port=9
udp,id=c,host=127.0.0.1
udp,id=c,host=h,port=
udp,id=c,port=abc
udp,id=c,port=9,host=127.0.0.1,localaddr=1.1.1.1
mux,id=c
mux,id=c,chardev=x
null,id=x mux,id=c,chardev=x
null,id=x mux,id=c,chardev=x mux,id=d,chardev=x
hub,id=c
hub,id=c,chardevs.0=x
hub,id=c,chardevs.1=x
null,id=x hub,id=c,chardevs.0=x
null,id=x hub,id=c,chardevs.0=x hub,id=d,chardevs.0=x
null,id=x hub,id=c,chardevs.0=x hub,id=d,chardevs.0=c
null,id=x,mux=on hub,id=c,chardevs.0=x
pty,id=c,path=${DIR}/no/link
stdio,id=c,signal=x
`), "\n")

// TestReferenceLegacy compares what is said about mistakes in options.
func TestReferenceLegacy(t *testing.T) {
	t.Parallel()
	prog := reference(t)
	for _, text := range legacyCases {
		theirs := referenceLegacy(t, prog, strings.Fields(strings.ReplaceAll(text, "${DIR}", shortDir(t))))
		ours := ourLegacy(t, strings.Fields(strings.ReplaceAll(text, "${DIR}", shortDir(t))))
		if ours != theirs {
			t.Errorf("%s\nours   %q\ntheirs %q", text, ours, theirs)
		}
	}
}

// referenceLegacy returns warnings and error without their prefixes, and with
// "…" in place of the folder's name.
func referenceLegacy(t *testing.T, prog string, options []string) string {
	t.Helper()
	var args []string
	for _, o := range options {
		args = append(args, "--chardev", o)
	}
	cmd := exec.Command(prog, append(args, "--blockdev", "null-co")...) // a mistake ends it
	var stderr strings.Builder
	cmd.Stderr = &stderr
	cmd.Run()
	var lines []string
	for line := range strings.Lines(stderr.String()) {
		line = strings.TrimSuffix(line, "\n")
		if strings.Contains(line, ": --blockdev null-co: ") {
			break
		}
		for _, o := range options {
			if _, text, ok := strings.Cut(line, ": --chardev "+o+": "); ok {
				line = text
			}
		}
		lines = append(lines, line)
	}
	return hideDir(strings.Join(lines, "\n"))
}

func ourLegacy(t *testing.T, options []string) string {
	t.Helper()
	s := newSet(t, Config{})
	defer s.Close()
	var lines []string
	for _, o := range options {
		l, err := ParseLegacy(o)
		for _, w := range l.Warnings {
			lines = append(lines, "warning: "+w)
		}
		if err == nil {
			_, err = s.AddLegacy(within(t), l)
		}
		if err != nil {
			e := qerr.From(err)
			lines = append(lines, e.Desc)
			if e.Hint != "" {
				lines = append(lines, strings.TrimSuffix(e.Hint, "\n"))
			}
			break
		}
	}
	return hideDir(strings.Join(lines, "\n"))
}

// hideDir replaces names of folders that shortDir made, and what was made of
// them.
func hideDir(text string) string {
	return regexp.MustCompile(`q[0-9]{5,}`).ReplaceAllString(text, "…")
}

func TestReferenceHelp(t *testing.T) {
	t.Parallel()
	prog := reference(t)
	s := newSet(t, Config{})
	for option, want := range map[string]Help{
		"help": HelpBackends, "?": HelpBackends, "backend=help": HelpBackends, "help,id=c": HelpBackends,
		"null,help": HelpOptions, "null,id=c,?": HelpOptions, "help,help": HelpOptions, "null,help,bogus=1": HelpOptions,
	} {
		l, err := ParseLegacy(option)
		if err != nil || l.Help != want {
			t.Errorf("%s: %v, %v", option, l.Help, err)
			continue
		}
		ours := OptionsHelp()
		if l.Help == HelpBackends {
			ours = s.BackendsHelp()
		}
		theirs, _ := exec.Command(prog, "--chardev", option).Output() // it may fail, saying the same
		if ours != string(theirs) {
			t.Errorf("%s\nours\n%stheirs\n%s", option, ours, theirs)
		}
	}
}

// daemon is a reference daemon with a monitor, and a set that is told the same.
type daemon struct {
	t       *testing.T
	set     *Set
	monitor *programs.Monitor
}

func newDaemon(t *testing.T) *daemon {
	t.Helper()
	d := &daemon{t, newSet(t, Config{}), programs.Reference(t).StorageMonitor(t, "")}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(pair[1]) })
	l, err := ParseLegacy("socket,id=c0,fd=" + itoa(pair[0]))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.set.AddLegacy(within(t), l); err != nil {
		t.Fatal(err)
	}
	attach(t, d.set.Get("c0"))
	return d
}

type members = map[string]any

func (d *daemon) ask(command string, args members) string {
	d.t.Helper()
	if args == nil {
		args = members{}
	}
	text, err := json.Marshal(members{"execute": command, "arguments": args})
	if err != nil {
		d.t.Fatal(err)
	}
	return string(d.monitor.Ask(text))
}

// same compares a reply with what we say.
func (d *daemon) same(theirs, ours string, err error) {
	d.t.Helper()
	if err != nil {
		ours = `{"error": {"class": "GenericError", "desc": ` + string(qjson.AppendString(nil, err.Error())) + `}}`
	} else {
		ours = `{"return": ` + ours + `}`
	}
	if hideDir(ours) != hideDir(theirs) {
		d.t.Fatalf("ours   %s\ntheirs %s", ours, theirs)
	}
}

// list compares what query-chardev says.
func (d *daemon) list() {
	d.t.Helper()
	var parts []string
	for _, i := range d.set.List() {
		text := `{"frontend-open": ` + string(qjson.AppendBool(nil, i.FrontendOpen)) + `, "filename": ` +
			string(qjson.AppendString(nil, i.Filename)) + `, "label": ` + string(qjson.AppendString(nil, i.Label)) + `}`
		parts = append(parts, text)
	}
	d.same(d.ask("query-chardev", nil), "["+strings.Join(parts, ", ")+"]", nil)
}

// make adds or changes a device on both sides, each in a folder of its own.
func (d *daemon) make(command, label string, build func(dir string) (Backend, members)) {
	d.t.Helper()
	b, _ := build(shortDir(d.t))
	_, data := build(shortDir(d.t))
	theirs := d.ask(command, members{"id": label, "backend": members{"type": b.kind(), "data": data}})
	var err error
	if command == "chardev-add" {
		_, err = d.set.Add(within(d.t), label, b)
	} else {
		_, err = d.set.Change(within(d.t), label, b)
	}
	d.same(theirs, "{}", err)
	d.list()
}

func (d *daemon) remove(label string) {
	d.t.Helper()
	d.same(d.ask("chardev-remove", members{"id": label}), "{}", d.set.Remove(label))
	d.list()
}

func ring(size int64) func(string) (Backend, members) {
	return func(string) (Backend, members) { return &Ringbuf{Size: &size}, members{"size": size} }
}

func null(string) (Backend, members) { return &Null{}, members{} }

func unixSocket(path string, server bool) func(string) (Backend, members) {
	return func(dir string) (Backend, members) {
		path := filepath.Join(dir, path)
		b := &Socket{Addr: sockets.Address{Unix: &sockets.UnixAddress{Path: path}}, Server: &server}
		return b, members{"addr": members{"type": "unix", "data": members{"path": path}}, "server": server}
	}
}

func abstractSocket(name string, tight bool) func(string) (Backend, members) {
	return func(dir string) (Backend, members) {
		path := name + filepath.Base(dir)
		b := &Socket{Addr: sockets.Address{Unix: &sockets.UnixAddress{Path: path, Abstract: new(true), Tight: &tight}}}
		return b, members{"addr": members{"type": "unix", "data": members{"path": path, "abstract": true, "tight": tight}}}
	}
}

func muxOf(base string) func(string) (Backend, members) {
	return func(string) (Backend, members) { return &Mux{Chardev: base}, members{"chardev": base} }
}

func hubOf(labels ...string) func(string) (Backend, members) {
	if labels == nil {
		labels = []string{}
	}
	return func(string) (Backend, members) { return &Hub{Chardevs: labels}, members{"chardevs": labels} }
}

func outFile(name string) func(string) (Backend, members) {
	return func(dir string) (Backend, members) {
		return &File{Out: filepath.Join(dir, name)}, members{"out": filepath.Join(dir, name)}
	}
}

func fdSocket(string) (Backend, members) {
	return &Socket{Addr: sockets.Address{FD: new("5")}}, members{"addr": members{"type": "fd", "data": members{"str": "5"}}}
}

// TestReferenceCommands plays a history of commands to both.
func TestReferenceCommands(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	for _, step := range []struct {
		command, label string
		build          func(string) (Backend, members)
	}{
		{"chardev-add", "r0", ring(16)},
		{"chardev-add", "r1", ring(15)},
		{"chardev-add", "r1", ring(-4)},
		{"chardev-add", "r0", null},
		{"chardev-add", "c0", null},
		{"chardev-add", "", null},
		{"chardev-add", "1", null},
		{"chardev-add", "a/b", null},
		{"chardev-add", "type", null},
		{"chardev-add", "type", ring(3)},
		{"chardev-add", "f0", outFile("out")},
		{"chardev-add", "f1", outFile("no/out")},
		{"chardev-add", "s0", unixSocket("s.sock", true)},
		{"chardev-add", "s1", unixSocket("no/s.sock", true)},
		{"chardev-add", "s1", unixSocket("s.sock", false)},
		{"chardev-add", "a0", abstractSocket("x", true)},
		{"chardev-add", "a1", abstractSocket("x", false)},
		{"chardev-add", "fd", fdSocket},
		{"chardev-add", "m0", muxOf("nope")},
		{"chardev-add", "m0", muxOf("f0")},
		{"chardev-add", "m1", muxOf("f0")},
		{"chardev-add", "m1", muxOf("m0")},
		{"chardev-add", "m2", muxOf("c0")},
		{"chardev-add", "h0", hubOf()},
		{"chardev-add", "h0", hubOf("nope")},
		{"chardev-add", "h0", hubOf("r0", "r0")},
		{"chardev-add", "h0", hubOf("r0")},
		{"chardev-add", "h1", hubOf("h0")},
		{"chardev-add", "h1", hubOf("m1")},
		{"chardev-add", "h1", hubOf("s0", "r0")},
		{"chardev-add", "h1", hubOf("", "1", "a/b", "a0", "nope")},
		{"chardev-add", "h1", hubOf("", "1", "a/b", "a0", "a1")},
		{"chardev-add", "h1", hubOf("", "1", "a/b", "a0")},
		{"chardev-change", "nope", null},
		{"chardev-change", "c0", null},
		{"chardev-change", "m0", null},
		{"chardev-change", "h0", null},
		{"chardev-change", "r0", null},
		{"chardev-change", "s0", unixSocket("t.sock", true)},
		{"chardev-change", "s0", outFile("no/x")},
		{"chardev-change", "s0", null},
	} {
		d.make(step.command, step.label, step.build)
	}
	for _, label := range []string{"nope", "c0", "m0", "f0", "h0", "r0", "", "h1", "", "a0", "a1", "1"} {
		d.remove(label)
	}
	d.same(d.ask("chardev-send-break", members{"id": "nope"}), "{}", d.set.SendBreak("nope"))
	d.same(d.ask("chardev-send-break", members{"id": "c0"}), "{}", d.set.SendBreak("c0"))
	var names []string
	for _, name := range d.set.Backends() {
		names = append(names, `{"name": "`+name+`"}`)
	}
	d.same(d.ask("query-chardev-backends", nil), "["+strings.Join(names, ", ")+"]", nil)
}

func TestReferenceRingbuf(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.make("chardev-add", "r", ring(16))
	put := func(label, text, format string) {
		t.Helper()
		err := d.set.RingbufWrite(label, text, format == "base64")
		d.same(d.ask("ringbuf-write", members{"device": label, "data": text, "format": format}), "{}", err)
	}
	get := func(label string, size int64, format string) {
		t.Helper()
		text, err := d.set.RingbufRead(label, size, format == "base64")
		theirs := d.ask("ringbuf-read", members{"device": label, "size": size, "format": format})
		d.same(theirs, string(qjson.AppendString(nil, text)), err)
	}
	put("r", "hello", "utf8")
	put("r", "d29ybGQ=", "base64")
	put("r", "***", "base64")
	put("c0", "x", "utf8")
	put("nope", "x", "utf8")
	for _, size := range []int64{0, -1, 7, 100, 100} {
		get("r", size, "utf8")
	}
	get("c0", 0, "utf8")
	get("nope", 0, "utf8")
	put("r", "0123456789abcdefXYZ", "utf8")
	get("r", 5, "base64")
	put("r", "more", "utf8")
	get("r", 100, "base64")
	put("r", "aé€z", "utf8")
	get("r", 2, "utf8")
	get("r", 2, "utf8")
	get("r", 100, "utf8")
	put("r", "YWIAY2Q=", "base64")
	get("r", 100, "utf8")
	put("r", "/wCA", "base64")
	get("r", 100, "utf8")
}

// TestReferenceProperties compares the properties of sockets.
func TestReferenceProperties(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.make("chardev-add", "s", unixSocket("s.sock", true))
	d.make("chardev-add", "a0", abstractSocket("x", true))
	d.make("chardev-add", "a1", abstractSocket("x", false))
	for _, label := range []string{"s", "a0", "a1"} {
		for _, name := range []string{"addr", "connected", "type", "nope"} {
			args := members{"path": "/chardevs/" + label, "property": name}
			ours, err := d.set.tree.Get("/chardevs/"+label, name)
			d.same(d.ask("qom-get", args), string(ours), err)
		}
	}
	ours, err := d.set.tree.TypeProperties("chardev-socket")
	var parts []string
	for _, p := range ours {
		parts = append(parts, `{"name": "`+p.Name+`", "type": "`+p.Type+`"}`)
	}
	d.same(d.ask("qom-list-properties", members{"typename": "chardev-socket"}), "["+strings.Join(parts, ", ")+"]", err)
}

func FuzzParseLegacy(f *testing.F) {
	for _, text := range legacyCases {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseLegacy(text)
		if err == nil && l.Help == NoHelp && (l.Backend == nil || l.ID == "") {
			t.Errorf("%q: %+v", text, l)
		}
	})
}
