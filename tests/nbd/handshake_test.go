package nbd_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/nbd"
)

// The exports that the conversations with a pair are about.
const (
	oddName = `a "b" \ ünï %s` + "\x01\x7f"
)

// standardFiles fills a folder: c.raw has data in the middle, the same for
// g.raw, and big.raw is a TiB with a few islands of data.
func standardFiles(tb testing.TB) func(dir string) {
	return func(dir string) {
		middle := make([]byte, 1<<20)
		copy(middle[192<<10:], pattern(192<<10, 128<<10))
		for _, name := range []string{"c.raw", "g.raw", "d.raw"} {
			writeSparse(tb, filepath.Join(dir, name), middle)
		}
		path := filepath.Join(dir, "big.raw")
		sparseFile(tb, path, 1<<40)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			tb.Fatal(err)
		}
		defer f.Close()
		for _, at := range []int64{0, 5 << 30, 1<<40 - 1<<16} {
			if _, err := f.WriteAt(pattern(at, 1<<16), at); err != nil {
				tb.Fatal(err)
			}
		}
	}
}

// writeSparse writes a file that has holes where there are zeroes.
func writeSparse(tb testing.TB, path string, content []byte) {
	tb.Helper()
	sparseFile(tb, path, int64(len(content)))
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	for at := 0; at < len(content); at += 4096 {
		if part := content[at:min(at+4096, len(content))]; len(bytes.Trim(part, "\x00")) > 0 {
			if _, err := f.WriteAt(part, int64(at)); err != nil {
				tb.Fatal(err)
			}
		}
	}
}

// standardExports shows them: x to write to, ro not, one for each kind of
// name.
var standardExports = []string{
	"--blockdev", `{"driver":"file","node-name":"f","filename":"DIR/c.raw","discard":"unmap"}`,
	"--blockdev", `{"driver":"file","node-name":"g","filename":"DIR/g.raw"}`,
	"--blockdev", `{"driver":"raw","node-name":"r","file":"g"}`,
	"--blockdev", `{"driver":"raw","node-name":"d","file":{"driver":"file","filename":"DIR/d.raw","discard":"unmap"},"discard":"unmap"}`,
	"--blockdev", `{"driver":"file","node-name":"big","filename":"DIR/big.raw","discard":"unmap"}`,
	"--nbd-server", "addr.type=unix,addr.path=DIR/n.sock",
	"--export", `{"type":"nbd","id":"e0","node-name":"f","name":"x","writable":true}`,
	"--export", `{"type":"nbd","id":"e1","node-name":"f","name":"ro","description":"not to be written to"}`,
	"--export", `{"type":"nbd","id":"e2","node-name":"r","name":"","writable":true,"allocation-depth":true}`,
	"--export", `{"type":"nbd","id":"e3","node-name":"f","name":"` + `a \"b\" \\ ünï %s\u0001\u007f` + `","description":"%d \"q\" é"}`,
	"--export", `{"type":"nbd","id":"e4","node-name":"big","name":"big","writable":true,"allocation-depth":true}`,
	"--export", `{"type":"nbd","id":"e5","node-name":"r","name":"` + strings.Repeat("n", 255) + `","description":"` + strings.Repeat("d", 4096) + `"}`,
	"--export", `{"type":"nbd","id":"e6","node-name":"r"}`,
	"--export", `{"type":"nbd","id":"e7","node-name":"d","name":"d","writable":true,"allocation-depth":true}`,
}

// step is something said to both, and how the answer is read; nil: nothing
// comes.
type step struct {
	say  []byte
	read func(*wire) ([]byte, error)
}

func opt(o nbd.Option, data []byte) step { return step{option(o, data), readOptionReplies} }

func exportName(name string) step { return step{option(nbd.OptExportName, []byte(name)), readRest} }

// converse goes through steps on a new connection.
func (p *pair) converse(t *testing.T, steps []step) {
	t.Helper()
	c := p.connect(t)
	defer c.close()
	for k, s := range steps {
		c.send(s.say)
		if s.read == nil {
			continue
		}
		if diff := c.compare(s.read); diff != nil {
			t.Errorf("step %d, %q:\n%v", k, shorten(s.say), diff)
			if diff.want.end != "" || diff.came.end != "" {
				return
			}
		}
	}
}

func shorten(b []byte) []byte {
	if len(b) > 400 {
		return append(b[:400:400], "…"...)
	}
	return b
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	p := startPair(t, standardFiles(t), standardExports...)
	fixed := step{say: clientFlags(3)}
	structured, extended := opt(nbd.OptStructuredReply, nil), opt(nbd.OptExtendedHeaders, nil)
	allInfos := []nbd.InfoType{nbd.InfoExport, nbd.InfoName, nbd.InfoDescription, nbd.InfoBlockSize}

	every := []step{fixed}
	for _, name := range []string{"x", "ro", "", "big", "r", oddName, strings.Repeat("n", 255), "nope", strings.Repeat("y", 100)} {
		every = append(every, opt(nbd.OptInfo, infoData(name)), opt(nbd.OptInfo, infoData(name, allInfos...)))
	}
	// Every option with every sort of data, before and after each agreement.
	data := [][]byte{nil, {0}, []byte("abc"), infoData("x"), infoData("x", 1, 2, 3), infoData("x", 77), infoData("x", 1, 1, 3, 3),
		infoData("x")[:5], append(infoData("x"), "zz"...), infoData(strings.Repeat("x", 4097)), infoData(strings.Repeat("x", 4096)),
		metaData("x"), metaData("x", "base:allocation"), metaData("x", "base:"), metaData("x", "base:allocation")[:20],
		append(metaData("x", "base:allocation"), 0), metaData("nope", "base:allocation"), metaData("x", strings.Repeat("q", 5000)),
		make([]byte, 100), bytes.Repeat([]byte{0xff}, 40), make([]byte, 65536), make([]byte, 65537), make([]byte, 100000)}
	options := []step{fixed}
	for _, agree := range []*step{nil, &structured, &extended} {
		if agree != nil {
			options = append(options, *agree)
		}
		for _, o := range []nbd.Option{0, nbd.OptList, nbd.OptPeekExport, nbd.OptStartTLS, nbd.OptInfo, nbd.OptListMetaContext,
			nbd.OptSetMetaContext, 12, 99, 1 << 31, 1<<32 - 1} {
			for _, d := range data {
				options = append(options, opt(o, d))
			}
		}
		for _, d := range data[1:] {
			options = append(options, opt(nbd.OptStructuredReply, d), opt(nbd.OptExtendedHeaders, d))
		}
	}
	contexts := []step{fixed, structured}
	for _, name := range []string{"x", "", "big", "nope"} {
		for _, queries := range [][]string{{}, {"base:"}, {"base:allocation"}, {"base:nope"}, {"qemu:"}, {"qemu:allocation-depth"},
			{"qemu:dirty-bitmap:"}, {"qemu:dirty-bitmap:b"}, {"qemu:allocation-depth:"}, {"qemu:nope"}, {"x:y"}, {"base"}, {"qemu"}, {""}, {":"},
			{"base:allocation", "base:allocation"}, {"base:allocation", "qemu:"}, {"qemu:allocation-depth", "base:allocation"},
			{"BASE:allocation"}, {"base:allocation\x00"}, {"base:allocatio"}} {
			contexts = append(contexts, opt(nbd.OptListMetaContext, metaData(name, queries...)), opt(nbd.OptSetMetaContext, metaData(name, queries...)))
		}
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"names", every},
		{"options", options},
		{"contexts", contexts},
		{"contexts, extended", append([]step{fixed, extended}, contexts[2:]...)},
		{"list", []step{fixed, opt(nbd.OptList, nil), opt(nbd.OptList, nil)}},
		{"agreements", []step{fixed, structured, structured, opt(nbd.OptInfo, infoData("x", 3)), extended, extended, structured, opt(nbd.OptInfo, infoData("x", 3))}},
		{"extended at once", []step{fixed, extended, structured, opt(nbd.OptGo, infoData("x"))}},
		{"abort", []step{fixed, opt(nbd.OptAbort, nil), {nil, readRest}}},
		{"abort with data", []step{fixed, opt(nbd.OptAbort, []byte("x")), {nil, readRest}}},
		{"abort, not fixed", []step{step{say: clientFlags(0)}, opt(nbd.OptAbort, nil), {nil, readRest}}},
		{"export name", []step{fixed, exportName("x")}},
		{"export name, unknown", []step{fixed, exportName("nope")}},
		{"export name, default", []step{fixed, exportName("")}},
		{"export name, odd", []step{fixed, exportName(oddName)}},
		{"export name of 4096", []step{fixed, exportName(strings.Repeat("x", 4096))}},
		{"export name of 4097", []step{fixed, exportName(strings.Repeat("x", 4097))}},
		{"export name of 65537 bytes", []step{fixed, exportName(strings.Repeat("x", 65537))}},
		{"export name, zeroes", []step{step{say: clientFlags(1)}, exportName("x")}},
		{"export name, not fixed", []step{step{say: clientFlags(2)}, exportName("x")}},
		{"export name, no flags", []step{step{say: clientFlags(0)}, exportName("ro")}},
		{"export name, structured", []step{step{say: clientFlags(1)}, structured, exportName("x")}},
		{"export name, extended", []step{fixed, extended, exportName("x")}},
		{"go", []step{fixed, opt(nbd.OptGo, infoData("x")), {nil, readRest}}},
		{"go, all", []step{fixed, structured, opt(nbd.OptGo, infoData("ro", allInfos...)), {nil, readRest}}},
		{"go, refused", []step{fixed, opt(nbd.OptGo, infoData("nope")), opt(nbd.OptGo, infoData("x", 77)), {nil, readRest}}},
		{"option, not fixed", []step{step{say: clientFlags(0)}, opt(nbd.OptList, nil), {nil, readRest}}},
		{"option, not fixed but without zeroes", []step{step{say: clientFlags(2)}, opt(99, nil), {nil, readRest}}},
		{"go, not fixed", []step{step{say: clientFlags(0)}, opt(nbd.OptGo, infoData("x")), {nil, readRest}}},
		{"flags unknown", []step{{clientFlags(7), readRest}}},
		{"flags all", []step{{clientFlags(1<<32 - 1), readRest}}},
		{"magic wrong", []step{fixed, {make([]byte, 16), readRest}}},
		{"magic of old", []step{fixed, {[]byte("IHAVEOPU\x00\x00\x00\x03\x00\x00\x00\x00"), readRest}}},
		{"length too great", []step{fixed, {optionOf(99, 32<<20+1, nil), readRest}}},
		{"length absurd", []step{fixed, {optionOf(nbd.OptGo, 1<<32-1, nil), readRest}}},
		{"length just not too great", []step{fixed, opt(99, make([]byte, 32<<20)), opt(nbd.OptList, nil)}},
		{"payload, contexts of none", []step{fixed, extended, opt(nbd.OptSetMetaContext, metaData("x", "no:such")), opt(nbd.OptInfo, infoData("x"))}},
		{"payload, contexts of another", []step{fixed, extended, opt(nbd.OptSetMetaContext, metaData("ro", "base:allocation")), opt(nbd.OptInfo, infoData("x")), opt(nbd.OptInfo, infoData("ro")), opt(nbd.OptGo, infoData("x"))}},
		{"payload, contexts listed", []step{fixed, extended, opt(nbd.OptListMetaContext, metaData("x", "base:allocation")), opt(nbd.OptInfo, infoData("x"))}},
		{"payload, contexts forgotten", []step{fixed, extended, opt(nbd.OptSetMetaContext, metaData("x", "base:allocation")), opt(nbd.OptInfo, infoData("x")), opt(nbd.OptSetMetaContext, metaData("nope", "base:allocation")), opt(nbd.OptInfo, infoData("x"))}},
		{"payload, contexts before", []step{fixed, structured, opt(nbd.OptSetMetaContext, metaData("x", "base:allocation")), extended, opt(nbd.OptInfo, infoData("x")), opt(nbd.OptGo, infoData("x"))}},
		{"go, payload, contexts of none", []step{fixed, extended, opt(nbd.OptSetMetaContext, metaData("x", "no:such")), opt(nbd.OptGo, infoData("x"))}},
		{"go, payload, contexts listed", []step{fixed, extended, opt(nbd.OptListMetaContext, metaData("x", "base:allocation")), opt(nbd.OptGo, infoData("x"))}},
		{"go, payload, info of another", []step{fixed, extended, opt(nbd.OptSetMetaContext, metaData("x", "base:allocation")), opt(nbd.OptInfo, infoData("ro")), opt(nbd.OptGo, infoData("x"))}},
		{"go, payload, go to none before", []step{fixed, extended, opt(nbd.OptSetMetaContext, metaData("x", "base:allocation")), opt(nbd.OptGo, infoData("nope")), opt(nbd.OptGo, infoData("x"))}},
		{"nul", []step{fixed, structured, opt(nbd.OptInfo, infoData("x\x00")), opt(nbd.OptInfo, infoData("\x00x", 77)), opt(nbd.OptListMetaContext, metaData("x\x00")),
			opt(nbd.OptListMetaContext, metaData("x", "a:b\x00")), opt(nbd.OptListMetaContext, metaData("x", "base:\x00")),
			opt(nbd.OptListMetaContext, metaData("x", "base:x\x00")), opt(nbd.OptListMetaContext, metaData("x", "\x00")),
			opt(nbd.OptListMetaContext, metaData("x", "qemu:\x00")), opt(nbd.OptListMetaContext, metaData("x", "qemu:a\x00")),
			opt(nbd.OptListMetaContext, metaData("x", "nope\x00nope")),
			opt(nbd.OptListMetaContext, metaData("x", "base:allocatioX\x00")), opt(nbd.OptListMetaContext, metaData("x", "base:allocatio\x00")),
			opt(nbd.OptListMetaContext, metaData("", "qemu:allocation-dept\x00")), opt(nbd.OptListMetaContext, metaData("x", "qemu:allocation-dept\x00")),
			opt(nbd.OptListMetaContext, metaData("x", "qemu:dirty-bitmap:\x00")),
			opt(nbd.OptListMetaContext, metaData("x", "base:"+strings.Repeat("\x00", 10))), opt(nbd.OptListMetaContext, metaData("", "qemu:"+strings.Repeat("\x00", 16))),
			opt(nbd.OptListMetaContext, metaData("x", strings.Repeat("\x00", 15))),
			opt(nbd.OptListMetaContext, metaData("x", strings.Repeat("\x00", 5000))),
			opt(nbd.OptListMetaContext, metaData("", strings.Repeat("\x00", 21))),
			opt(nbd.OptListMetaContext, metaData("", "qemu:"+strings.Repeat("\x00", 13))),
			opt(nbd.OptListMetaContext, metaData("", "base:allocation", "base:allocation\x00"))}},
		{"export name with nul", []step{fixed, exportName("x\x00")}},
		{"trailing, then goes on", []step{fixed, structured, opt(nbd.OptListMetaContext, append(metaData("x", "base:allocation"), 0)), opt(nbd.OptList, nil)}},
		{"queries announced, none there", []step{fixed, structured, opt(nbd.OptListMetaContext, be.AppendUint32(lengthAnd("x"), 5)), opt(nbd.OptList, nil)}},
		{"queries announced, one there", []step{fixed, structured, opt(nbd.OptSetMetaContext, append(be.AppendUint32(lengthAnd("x"), 5), lengthAnd("base:allocation")...)), opt(nbd.OptGo, infoData("x"))}},
		{"nothing at all", []step{fixed, structured, opt(nbd.OptListMetaContext, nil), opt(nbd.OptSetMetaContext, nil), opt(nbd.OptInfo, nil), opt(nbd.OptGo, []byte{0, 0, 0})}},
		{"name only", []step{fixed, structured, opt(nbd.OptListMetaContext, lengthAnd("x")), opt(nbd.OptListMetaContext, lengthAnd("nope")), opt(nbd.OptSetMetaContext, lengthAnd("nope")), opt(nbd.OptInfo, lengthAnd("x")), opt(nbd.OptInfo, lengthAnd("nope"))}},
		{"unknown export, list of infos short", []step{fixed, opt(nbd.OptInfo, append(lengthAnd("nope"), 0, 3, 0)), opt(nbd.OptInfo, append(lengthAnd("nope"), 0, 0, 0))}},
		{"half an option", []step{fixed, {option(nbd.OptList, nil)[:9], readRest}}},
		{"half the data", []step{fixed, {optionOf(nbd.OptGo, 100, infoData("x")), readRest}}},
		{"the end behind the magic", []step{fixed, {option(nbd.OptList, nil)[:8], readRest}}},
		{"the end within the length", []step{fixed, {option(nbd.OptList, nil)[:14], readRest}}},
		{"the end within the name", []step{fixed, {option(nbd.OptGo, infoData("x"))[:21], readRest}}},
		{"the end within data that nobody reads", []step{fixed, {option(77, infoData("x"))[:21], readRest}}},
		{"the end within queries", []step{fixed, structured, {option(nbd.OptSetMetaContext, metaData("x", "base:"))[:30], readRest}}},
		{"the end within the name of old", []step{fixed, {option(nbd.OptExportName, []byte("xyz"))[:18], readRest}}},
		{"silence", []step{{nil, readRest}}},
		{"half the flags", []step{{clientFlags(3)[:2], readRest}}},
		{"all at once", []step{{bytes.Join([][]byte{clientFlags(3), option(nbd.OptList, nil), option(nbd.OptInfo, infoData("x")), option(nbd.OptGo, infoData("ro"))}, nil),
			readRest}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.converse(t, c.steps)
		})
	}
	p.sameComplaints(t)
}
