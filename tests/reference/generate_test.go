package reference

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// A request is made as a tree, so that it can be broken at any depth, and
// then written. Objects keep the order of their members.
type (
	object []member
	member struct {
		name  string
		value any
	}
	list []any
	// fixed is a value that is left alone: without it, or with another, the
	// reference would hang or die.
	fixed struct{ value any }
)

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// sometimes adds a member in one of n cases.
func (o *object) sometimes(r *rand.Rand, n int, name string, value any) {
	if r.IntN(n) == 0 {
		*o = append(*o, member{name, value})
	}
}

func node(r *rand.Rand) string { return pick(r, "n0", "n1", "n2", "n3", "n4", "n0", "n1", "nope") }

func size(r *rand.Rand) int64 {
	return pick[int64](r, 0, 1, 511, 512, 1000, 4096, 65536, 131072, 1<<20, 1<<20+1, 1<<62)
}

// command makes one request as a text.
func command(r *rand.Rand) string {
	make := pick(r, commands...)
	name, arguments := make(r)
	if r.IntN(4) == 0 {
		arguments = breakTree(r, arguments).(object)
	}
	request := object{{"execute", name}}
	if len(arguments) > 0 || r.IntN(3) == 0 {
		request = append(request, member{"arguments", arguments})
	}
	if r.IntN(3) == 0 {
		request = append(request, member{"id", pick[any](r, 1, "x", nil, 1.5, list{1, object{{"b", 1}, {"a", 2}}}, object{})})
	}
	if r.IntN(20) == 0 {
		request = breakTree(r, request).(object)
	}
	var b strings.Builder
	write(&b, request)
	return b.String()
}

// inOrder are requests around the negotiation that are always answered in
// turn; negotiations has also those which may overtake, so that with several
// on the way the order of the answers is anybody's guess.
var inOrder = []string{
	`{"execute":"qmp_capabilities"}`,
	`{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}`,
	`{"execute":"qmp_capabilities","arguments":{"enable":["bogus"]}}`,
	`{"execute":"qmp_capabilities","arguments":{"enable":5}}`,
	`{"execute":"query-version","exec-oob":"query-version"}`,
}

var negotiations = append([]string{
	`{"exec-oob":"query-version"}`,
	`{"exec-oob":"qmp_capabilities","id":1}`,
}, inOrder...)

var commands = []func(*rand.Rand) (string, object){
	blockdevAdd, blockdevAdd, blockdevAdd, blockdevAdd, blockdevDel, blockdevDel, blockdevReopen, blockdevReopen,
	blockdevChange, blockdevChange,
	setActive, resize, resize, threshold, query, query, query, setIOThread,
	serverStart, serverStart, serverStart, serverStop, exportAdd, exportAdd, exportAdd, exportAdd, exportDel, serverAdd, serverRemove,
	bitmap, bitmap, snapshot, snapshotSync, changeBackingFile, transaction, transaction,
	objectAdd, objectDel, qomList, qomGet, qomSet, chardevAdd, chardevRemove, chardevChange, ringbufWrite, ringbufRead, unknown,
}

func blockdevAdd(r *rand.Rand) (string, object) {
	return "blockdev-add", definition(r, node(r), 2)
}

// definition makes the options of a node: inline children while depth lasts.
func definition(r *rand.Rand, name string, depth int) object {
	var o object
	driver := pick(r, "null-co", "null-co", "null-aio", "file", "file", "raw", "raw", "raw", "quorum", "quorum", "blklogwrites", "host_device")
	// A negative size makes the reference abort, so the driver stays.
	if strings.HasPrefix(driver, "null") {
		o = append(o, member{"driver", fixed{driver}})
	} else {
		o = append(o, member{"driver", driver})
	}
	if name != "" {
		o = append(o, member{"node-name", name})
	}
	common(r, &o)
	switch driver {
	case "null-co", "null-aio":
		o.sometimes(r, 2, "size", fixed{size(r)})
		o.sometimes(r, 4, "latency-ns", pick(r, 0, 1, 1000))
		o.sometimes(r, 2, "read-zeroes", r.IntN(2) == 0)
	case "file":
		o = append(o, member{"filename", pick(r, "a.raw", "b.raw", "odd.raw", "./a.raw", "missing.raw", ".", "")})
		o.sometimes(r, 6, "locking", pick(r, "on", "off", "auto"))
		o.sometimes(r, 6, "aio", pick(r, "threads", "native"))
	case "host_device":
		o = append(o, member{"filename", pick(r, "a.raw", "/dev/nope")})
	case "raw":
		o = append(o, member{"file", child(r, depth)})
		o.sometimes(r, 4, "size", size(r))
		o.sometimes(r, 4, "offset", size(r))
	case "quorum":
		children := list{child(r, depth)}
		for r.IntN(3) > 0 {
			children = append(children, child(r, depth))
		}
		o = append(o, member{"children", children}, member{"vote-threshold", pick(r, 1, 1, 1, 2, 2, 3, 0)})
		o.sometimes(r, 4, "rewrite-corrupted", r.IntN(2) == 0)
		o.sometimes(r, 4, "read-pattern", pick(r, "quorum", "fifo"))
		o.sometimes(r, 6, "blkverify", r.IntN(2) == 0)
	case "blklogwrites":
		o = append(o, member{"file", child(r, depth)}, member{"log", child(r, depth)})
		o.sometimes(r, 4, "log-sector-size", pick(r, 512, 4096, 1000, 0))
		o.sometimes(r, 4, "log-append", r.IntN(2) == 0)
	}
	return o
}

func common(r *rand.Rand, o *object) {
	o.sometimes(r, 6, "read-only", r.IntN(2) == 0)
	o.sometimes(r, 8, "auto-read-only", r.IntN(2) == 0)
	o.sometimes(r, 10, "force-share", r.IntN(2) == 0)
	o.sometimes(r, 6, "discard", pick(r, "ignore", "unmap"))
	o.sometimes(r, 6, "detect-zeroes", pick(r, "off", "on", "unmap"))
	o.sometimes(r, 8, "active", r.IntN(4) > 0)
	if r.IntN(6) == 0 {
		cache := object{{"direct", false}}
		cache.sometimes(r, 2, "no-flush", r.IntN(2) == 0)
		*o = append(*o, member{"cache", cache})
	}
}

func child(r *rand.Rand, depth int) any {
	if depth == 0 || r.IntN(2) == 0 {
		return node(r)
	}
	return definition(r, pick(r, "", "", "n3", "n4", "inner"), depth-1)
}

func blockdevDel(r *rand.Rand) (string, object) {
	return "blockdev-del", object{{"node-name", node(r)}}
}

func blockdevChange(r *rand.Rand) (string, object) {
	o := object{{"parent", node(r)}}
	o.sometimes(r, 2, "child", pick(r, "children.0", "children.1", "children.2", "file", "nope"))
	o.sometimes(r, 2, "node", node(r))
	return "x-blockdev-change", o
}

func blockdevReopen(r *rand.Rand) (string, object) {
	options := list{definition(r, node(r), 0)}
	for r.IntN(4) == 0 {
		options = append(options, definition(r, node(r), 1))
	}
	// An empty list is an assertion that fails in the reference.
	return "blockdev-reopen", object{{"options", fixed{options}}}
}

func setActive(r *rand.Rand) (string, object) {
	o := object{{"active", r.IntN(3) > 0}}
	if r.IntN(4) > 0 {
		o = append(o, member{"node-name", node(r)})
	}
	return "blockdev-set-active", o
}

func resize(r *rand.Rand) (string, object) {
	o := object{{"size", pick(r, size(r), -1, 1<<63-1)}}
	o.sometimes(r, 10, "device", node(r))
	if r.IntN(10) > 0 {
		o = append(o, member{"node-name", node(r)})
	}
	return "block_resize", o
}

func threshold(r *rand.Rand) (string, object) {
	return "block-set-write-threshold", object{{"node-name", node(r)}, {"write-threshold", size(r)}}
}

func query(r *rand.Rand) (string, object) {
	switch r.IntN(8) {
	case 0:
		return "query-named-block-nodes", object{{"flat", r.IntN(2) == 0}}
	case 1:
		return "query-blockstats", object{{"query-nodes", r.IntN(2) == 0}}
	}
	return pick(r, "query-named-block-nodes", "query-block", "query-blockstats", "query-chardev", "query-version",
		"query-jobs", "query-block-exports", "query-block-exports", "x-debug-query-block-graph", "query-chardev-backends"), nil
}

func setIOThread(r *rand.Rand) (string, object) {
	return "x-blockdev-set-iothread", object{{"node-name", node(r)}, {"iothread", pick[any](r, nil, "io0", "nope")}}
}

// serverStart asks for a server that is there at once, if at all: a name of a
// host could take long, and an empty path leaves files behind.
func serverStart(r *rand.Rand) (string, object) {
	addr := object{{"type", "unix"}, {"data", object{{"path", fixed{pick(r, "n.sock", "n.sock", "m.sock", "no/such/n.sock", "a.raw/n.sock")}}}}}
	switch r.IntN(8) {
	case 0:
		addr = object{{"type", "inet"}, {"data", object{{"host", fixed{"127.0.0.1"}}, {"port", fixed{pick(r, "0", "x")}}}}}
	case 1:
		addr = object{{"type", "fd"}, {"data", object{{"str", pick(r, "x", "1x")}}}}
	}
	o := object{{"addr", addr}}
	o.sometimes(r, 8, "max-connections", pick[any](r, 0, 1, -1, int64(1)<<32))
	o.sometimes(r, 8, "handshake-max-seconds", pick[any](r, 0, 1, -1, int64(1)<<32))
	o.sometimes(r, 12, "tls-creds", pick(r, "nope", "s0", "io0", ""))
	o.sometimes(r, 12, "tls-authz", "nope")
	return "nbd-server-start", o
}

func serverStop(*rand.Rand) (string, object) { return "nbd-server-stop", nil }

func export(r *rand.Rand) string { return pick(r, "e0", "e1", "n0", "n1", "1x", "nope") }

func exportAdd(r *rand.Rand) (string, object) {
	// Of the other types we have none.
	o := object{{"type", fixed{"nbd"}}, {"id", export(r)}, {"node-name", node(r)}}
	o.sometimes(r, 3, "name", pick(r, "x", "y", "", "ä", strings.Repeat("long", 1025)))
	o.sometimes(r, 8, "description", pick(r, "text", "", strings.Repeat("long", 1025)))
	o.sometimes(r, 3, "writable", r.IntN(3) > 0)
	o.sometimes(r, 8, "writethrough", r.IntN(2) == 0)
	o.sometimes(r, 4, "iothread", pick(r, "io0", "io0", "/objects/io0", "nope", ""))
	o.sometimes(r, 4, "fixed-iothread", r.IntN(2) == 0)
	o.sometimes(r, 4, "allow-inactive", r.IntN(2) == 0)
	o.sometimes(r, 10, "allocation-depth", r.IntN(2) == 0)
	o.sometimes(r, 10, "bitmaps", list{pick[any](r, "nope", object{{"node", node(r)}, {"name", "nope"}})})
	return "block-export-add", o
}

func exportDel(r *rand.Rand) (string, object) {
	o := object{{"id", export(r)}}
	o.sometimes(r, 2, "mode", pick(r, "safe", "hard"))
	return "block-export-del", o
}

func serverAdd(r *rand.Rand) (string, object) {
	o := object{{"device", node(r)}}
	o.sometimes(r, 3, "name", pick(r, "x", "n1", ""))
	o.sometimes(r, 3, "writable", r.IntN(2) == 0)
	o.sometimes(r, 10, "bitmap", "nope")
	return "nbd-server-add", o
}

func serverRemove(r *rand.Rand) (string, object) {
	o := object{{"name", export(r)}}
	o.sometimes(r, 2, "mode", pick(r, "safe", "hard"))
	return "nbd-server-remove", o
}

func bitmapName(r *rand.Rand) string { return pick(r, "b0", "b1", "b2", "b0", "nope", "") }

// bitmap makes a command about dirty bitmaps.
func bitmap(r *rand.Rand) (string, object) {
	kind := pick(r, "add", "add", "remove", "clear", "enable", "disable", "merge")
	return "block-dirty-bitmap-" + kind, bitmapArguments(r, kind)
}

func bitmapArguments(r *rand.Rand, kind string) object {
	if kind == "merge" {
		// The reference dies of an empty list.
		sources := list{bitmapName(r)}
		for r.IntN(3) == 0 {
			sources = append(sources, pick[any](r, bitmapName(r), object{{"node", node(r)}, {"name", bitmapName(r)}}))
		}
		return object{{"node", node(r)}, {"target", bitmapName(r)}, {"bitmaps", fixed{sources}}}
	}
	o := object{{"node", node(r)}, {"name", bitmapName(r)}}
	if kind == "add" {
		o.sometimes(r, 4, "granularity", pick[any](r, 512, 4096, 65536, 3, 1<<31))
		o.sometimes(r, 8, "persistent", r.IntN(2) == 0)
		o.sometimes(r, 4, "disabled", r.IntN(2) == 0)
	}
	return o
}

func snapshot(r *rand.Rand) (string, object) {
	return "blockdev-snapshot", object{{"node", node(r)}, {"overlay", node(r)}}
}

func snapshotSync(r *rand.Rand) (string, object) {
	o := object{{"snapshot-file", pick(r, "s0.q", "s1.q", "s0.q", "missing/s", "a.raw")}}
	if r.IntN(10) > 0 {
		o = append(o, member{"node-name", node(r)})
	}
	o.sometimes(r, 10, "device", node(r))
	if r.IntN(10) > 0 {
		o = append(o, member{"snapshot-node-name", pick(r, "n3", "n4", "n5", "1x")})
	}
	o.sometimes(r, 6, "format", pick(r, "qcow2", "raw", "file", "null-co", "nope"))
	o.sometimes(r, 3, "mode", pick(r, "existing", "absolute-paths"))
	return "blockdev-snapshot-sync", o
}

func changeBackingFile(r *rand.Rand) (string, object) {
	return "change-backing-file", object{{"device", node(r)}, {"image-node-name", node(r)}, {"backing-file", pick(r, "a.raw", "x", "")}}
}

// transaction leaves out what the reference dies of: enabling a bitmap that is
// not there.
func transaction(r *rand.Rand) (string, object) {
	var actions list
	for range 1 + r.IntN(4) {
		kind := pick(r, "add", "add", "remove", "clear", "disable", "merge")
		action := object{{"type", fixed{"block-dirty-bitmap-" + kind}}, {"data", bitmapArguments(r, kind)}}
		switch r.IntN(8) {
		case 0:
			action = object{{"type", "abort"}, {"data", object{}}}
		case 1, 2:
			name, arguments := pick(r, snapshot, snapshotSync)(r)
			action = object{{"type", fixed{name}}, {"data", arguments}}
		}
		actions = append(actions, action)
	}
	o := object{{"actions", actions}}
	if r.IntN(8) == 0 {
		o = append(o, member{"properties", object{{"completion-mode", pick(r, "individual", "grouped")}}})
	}
	return "transaction", o
}

func identifier(r *rand.Rand) string { return pick(r, "io0", "s0", "s1", "nope", "1x") }

func objectAdd(r *rand.Rand) (string, object) {
	if r.IntN(2) == 0 {
		o := object{{"qom-type", "iothread"}, {"id", identifier(r)}}
		o.sometimes(r, 3, "poll-max-ns", pick[any](r, 0, 1000, -1))
		o.sometimes(r, 3, "poll-grow", pick[any](r, 0, 2, -1))
		return "object-add", o
	}
	o := object{{"qom-type", "secret"}, {"id", identifier(r)}}
	o.sometimes(r, 2, "data", pick(r, "plain", "cGxhaW4=", "*"))
	o.sometimes(r, 4, "file", pick(r, "a.raw", "missing"))
	o.sometimes(r, 3, "format", pick(r, "raw", "base64"))
	o.sometimes(r, 6, "keyid", identifier(r))
	return "object-add", o
}

func objectDel(r *rand.Rand) (string, object) {
	return "object-del", object{{"id", identifier(r)}}
}

func path(r *rand.Rand) string {
	return pick(r, "/", "/objects", "/objects/io0", "/objects/s0", "/chardevs", "/chardevs/r0", "objects", "io0", "nope", "/nope", "")
}

func qomList(r *rand.Rand) (string, object) { return "qom-list", object{{"path", path(r)}} }

func property(r *rand.Rand) string {
	return pick(r, "type", "poll-grow", "poll-max-ns", "data", "format", "keyid", "nope")
}

func qomGet(r *rand.Rand) (string, object) {
	return "qom-get", object{{"path", path(r)}, {"property", property(r)}}
}

func qomSet(r *rand.Rand) (string, object) {
	value := pick[any](r, 1, -1, "x", true, nil, 1.5, list{}, object{})
	return "qom-set", object{{"path", path(r)}, {"property", property(r)}, {"value", value}}
}

func chardev(r *rand.Rand) string { return pick(r, "r0", "r1", "nope", "c0") }

// backend makes a character device that holds nothing up: a socket that waits
// for a client would.
func backend(r *rand.Rand) object {
	switch r.IntN(3) {
	case 0:
		return object{{"type", "null"}, {"data", object{}}}
	case 1:
		return object{{"type", "file"}, {"data", object{{"out", pick(r, "out.txt", "no/such/out")}}}}
	}
	data := object{}
	data.sometimes(r, 2, "size", pick(r, 8, 16, 7, 0))
	return object{{"type", pick(r, "ringbuf", "memory")}, {"data", data}}
}

func chardevAdd(r *rand.Rand) (string, object) {
	return "chardev-add", object{{"id", pick(r, "r0", "r1", "1x")}, {"backend", backend(r)}}
}

func chardevRemove(r *rand.Rand) (string, object) {
	return "chardev-remove", object{{"id", chardev(r)}}
}

func chardevChange(r *rand.Rand) (string, object) {
	return "chardev-change", object{{"id", chardev(r)}, {"backend", backend(r)}}
}

func ringbufWrite(r *rand.Rand) (string, object) {
	o := object{{"device", chardev(r)}, {"data", pick(r, "abc", "", "0123456789", "QUJD", "ä", "*")}}
	o.sometimes(r, 3, "format", pick(r, "utf8", "base64"))
	return "ringbuf-write", o
}

func ringbufRead(r *rand.Rand) (string, object) {
	o := object{{"device", chardev(r)}, {"size", pick(r, 1, 3, 100, 0, -1)}}
	o.sometimes(r, 3, "format", pick(r, "utf8", "base64"))
	return "ringbuf-read", o
}

func unknown(r *rand.Rand) (string, object) {
	return pick(r, "bogus", "", "query-bogus", "QUERY-BLOCK", "qmp_capabilities"), object{}
}

// breakTree breaks a value at one place.
func breakTree(r *rand.Rand, value any) any {
	switch v := value.(type) {
	case object:
		return breakObject(r, v)
	case list:
		if len(v) > 0 && r.IntN(3) > 0 {
			v = append(list{}, v...)
			at := r.IntN(len(v))
			v[at] = breakTree(r, v[at])
			return v
		}
	case fixed:
		// Break it inside, if there is an inside.
		if inner, ok := v.value.(list); ok && len(inner) > 0 {
			inner = append(list{}, inner...)
			at := r.IntN(len(inner))
			inner[at] = breakTree(r, inner[at])
			return fixed{inner}
		}
		return v
	}
	return pick[any](r, 5, "text", true, nil, 1.5, list{1}, object{{"driver", "raw"}}, "", int64(1)<<62)
}

func breakObject(r *rand.Rand, o object) any {
	o = append(object{}, o...)
	extra := member{pick(r, "bogus", "size", "file", "zz"), pick[any](r, 1, "x", nil)}
	if len(o) == 0 {
		return append(o, extra)
	}
	at := r.IntN(len(o))
	_, isFixed := o[at].value.(fixed)
	switch r.IntN(5) {
	case 0:
		if !isFixed {
			return append(o[:at], o[at+1:]...)
		}
	case 1:
		if !has(o, extra.name) {
			return append(o, extra)
		}
	case 2:
		o[at], o[0] = o[0], o[at]
		return o
	}
	o[at].value = breakTree(r, o[at].value)
	return o
}

func has(o object, name string) bool {
	for _, m := range o {
		if m.name == name {
			return true
		}
	}
	return false
}

// write writes a value as JSON.
func write(b *strings.Builder, value any) {
	switch v := value.(type) {
	case fixed:
		write(b, v.value)
	case object:
		b.WriteByte('{')
		for i, m := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(b, "%q:", m.name)
			write(b, m.value)
		}
		b.WriteByte('}')
	case list:
		b.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			write(b, e)
		}
		b.WriteByte(']')
	case nil:
		b.WriteString("null")
	case string:
		b.WriteString(strconv.Quote(v))
	default:
		fmt.Fprint(b, v)
	}
}
