package devices_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// reference plays scripts on the reference's system emulator.
type reference struct {
	tb      testing.TB
	monitor *daemon.Monitor
	events  []string
	// leaving are the events that will come when the guest lets go.
	leaving []string
}

func newReference(tb testing.TB) *reference {
	tb.Helper()
	return &reference{tb: tb, monitor: daemon.Reference(tb).SystemMonitor(tb, "", "-machine", "pc")}
}

// message reads one message.
func (r *reference) message() qjson.Value {
	r.tb.Helper()
	line := r.monitor.Read()
	v, err := qjson.Parse(line)
	if err != nil {
		r.tb.Fatalf("%v in %s", err, line)
	}
	return v
}

// ask sends a command and returns its reply; events on the way are kept.
func (r *reference) ask(command, args string) qjson.Value {
	if args == "" {
		args = "{}"
	}
	r.monitor.Send(fmt.Appendf(nil, `{"execute":"%s","arguments":%s}`, command, args))
	for {
		v := r.message()
		if !v.Get("event").Exists() {
			return v
		}
		r.note(v)
	}
}

func (r *reference) note(v qjson.Value) {
	switch name, data := v.Get("event").Str(), v.Get("data"); name {
	case "STOP", "RESUME":
		r.events = append(r.events, "~ "+name)
	case "DEVICE_DELETED":
		line := "~ DEVICE_DELETED " + data.Get("path").Str()
		if device := data.Get("device"); device.Exists() {
			line += " " + device.Str()
		}
		r.events = append(r.events, line)
	}
}

// await reads events until one is there.
func (r *reference) await(event string) {
	for !slices.Contains(r.events, event) {
		r.note(r.message())
	}
}

func (r *reference) play(command, args string) []string {
	r.events = nil
	switch command {
	case "drives":
		return r.drives()
	case "perms":
		return r.perms()
	case "complete":
		return r.complete()
	case "qom-list":
		return r.list(args)
	case "device_del":
		return r.remove(args)
	case "block-latency-histogram-set":
		args = strings.TrimSuffix(args, "}") + `,"boundaries":[10]}`
	}
	v := r.ask(command, args)
	return append([]string{outcome(command, v)}, r.events...)
}

func outcome(command string, v qjson.Value) string {
	if e := v.Get("error"); e.Exists() {
		if class := e.Get("class").Str(); class != "GenericError" {
			return e.Get("desc").Str() + " [" + class + "]"
		}
		return e.Get("desc").Str()
	}
	switch ret := v.Get("return"); {
	case command == "query-status":
		return ret.Get("status").Str()
	case command == "qom-get":
		return string(qjson.AppendValue(nil, ret))
	}
	return "ok"
}

// remove plays device_del. A SCSI device is gone a while after the reply.
func (r *reference) remove(args string) []string {
	path := parse(args).Get("id").Str()
	if !strings.HasPrefix(path, "/") {
		path = "/machine/peripheral/" + path
	}
	typ := r.ask("qom-get", `{"path":"`+path+`","property":"type"}`).Get("return").Str()
	answer := outcome("device_del", r.ask("device_del", args))
	event := "~ DEVICE_DELETED " + path
	if id, ok := strings.CutPrefix(path, "/machine/peripheral/"); ok {
		event += " " + id
	}
	switch {
	case answer != "ok":
	case strings.HasPrefix(typ, "scsi-"):
		r.await(event)
	default:
		r.leaving = append(r.leaving, event)
	}
	return append([]string{answer}, r.events...)
}

// complete makes the devices go that wait for a guest: a reset does.
func (r *reference) complete() []string {
	r.ask("system_reset", "")
	for _, event := range r.leaving {
		r.await(event)
	}
	r.leaving = nil
	return r.events
}

func (r *reference) drives() (lines []string) {
	for row := range r.ask("query-block", "").Get("return").Elems() {
		tray, status := "none", "none"
		if v := row.Get("tray_open"); v.Exists() {
			tray = map[bool]string{true: "open", false: "closed"}[v.Bool()]
		}
		if v := row.Get("io-status"); v.Exists() {
			status = v.Str()
		}
		in := row.Get("inserted")
		lines = append(lines, driveLine(row.Get("qdev").Str(), row.Get("removable").Bool(), row.Get("locked").Bool(),
			tray, status, in.Get("node-name").Str(), in.Get("ro").Bool(), in.Get("cache").Get("writeback").Bool()))
	}
	return lines
}

func (r *reference) perms() (lines []string) {
	graph := r.ask("x-debug-query-block-graph", "").Get("return")
	names := make(map[int64]string)
	for n := range graph.Get("nodes").Elems() {
		names[n.Get("id").Int()] = n.Get("name").Str()
	}
	for e := range graph.Get("edges").Elems() {
		lines = append(lines, edgeLine(names[e.Get("parent").Int()], names[e.Get("child").Int()],
			letters(e.Get("perm")), letters(e.Get("shared-perm"))))
	}
	slices.Reverse(lines) // newest first there
	return lines
}

func letters(v qjson.Value) string {
	var s strings.Builder
	for _, p := range []struct{ name, letter string }{
		{"consistent-read", "r"}, {"write", "w"}, {"write-unchanged", "u"}, {"resize", "R"},
	} {
		for have := range v.Elems() {
			if have.Is(p.name) {
				s.WriteString(p.letter)
			}
		}
	}
	return s.String() + "-"
}

func (r *reference) list(args string) (lines []string) {
	v := r.ask("qom-list", args)
	if v.Get("error").Exists() {
		return []string{outcome("qom-list", v)}
	}
	for p := range v.Get("return").Elems() {
		if line, ok := listLine(p.Get("name").Str(), p.Get("type").Str()); ok {
			lines = append(lines, line)
		}
	}
	return lines
}
