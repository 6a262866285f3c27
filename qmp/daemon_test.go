package qmp

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// TestBesideTheReference gives the reference and us the same random input and
// compares what comes back. More than the usual amount of input:
// QMPBLOCK_INPUTS=100000.
func TestBesideTheReference(t *testing.T) {
	t.Parallel()
	reference := startReference(t)
	ours := start(t).connect()
	inputs := 3000
	if testing.Short() {
		inputs = 300
	}
	if n := os.Getenv("QMPBLOCK_INPUTS"); n != "" {
		if _, err := fmt.Sscan(n, &inputs); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(ours.SetDeadline(time.Time{}), reference.SetDeadline(time.Time{})); err != nil {
		t.Fatal(err)
	}
	g := &generator{rand.New(rand.NewPCG(1, uint64(inputs)))}
	// Both work while we go on sending; the marks tell which reply is for
	// which input.
	const batch = 100
	for i := 0; i < inputs; i += batch {
		var texts [][]byte
		for n := i; n < i+batch; n++ {
			texts = append(texts, append(g.input(), fmt.Sprintf("\xff{\"execute\":\"query-jobs\",\"id\":\"mark %d\"}", n)...))
		}
		all := bytes.Join(texts, nil)
		go func() { _, _ = reference.Write(all) }()
		go func() { _, _ = ours.Write(all) }()
		for n, text := range texts {
			want, got := untilMark(t, reference.r, i+n), untilMark(t, ours.r, i+n)
			compare(t, got, want, text)
		}
	}
}

func compare(t *testing.T, got, want []string, input []byte) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	n := 0
	for n < min(len(got), len(want)) && got[n] == want[n] {
		n++
	}
	t.Fatalf("input %.3000q, reply %d\n ours: %.1000q\ntheir: %.1000q", input, n, got[n:], want[n:])
}

// untilMark reads the lines up to the reply with a mark.
func untilMark(t *testing.T, r *bufio.Reader, mark int) []string {
	t.Helper()
	var lines []string
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
		if strings.HasSuffix(line, fmt.Sprintf("\"id\": \"mark %d\"}\r\n", mark)) {
			return lines
		}
	}
}

// startReference returns a client which has negotiated with the reference
// daemon.
func startReference(t *testing.T) *client {
	program := daemon.Reference(t)
	dir, err := os.MkdirTemp("", "q")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "qmp.sock")
	p, err := daemon.Start(append(program.Storage, "--chardev", "socket,path="+path+",server=on,wait=off,id=c0", "--monitor", "chardev=c0"), dir, os.Environ())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	if err := p.AwaitSocket(path, patience); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	c := &client{t, conn.(*net.UnixConn), bufio.NewReader(conn)}
	c.line()
	c.ask(`{"execute":"qmp_capabilities"}`, `{"return": {}}`)
	return c
}

// generator makes inputs between right and wrong.
type generator struct{ *rand.Rand }

func (g *generator) pick(from ...string) string { return from[g.IntN(len(from))] }

// rarely lets one in forty parts be wrong, so that most messages are right.
func (g *generator) rarely() bool { return g.IntN(40) == 0 }

func (g *generator) input() []byte {
	var text string
	switch g.IntN(4) {
	case 0:
		text = g.soup()
	case 1:
		text = g.request()
	default:
		return g.damage([]byte(g.request()))
	}
	return []byte(text)
}

// soup is a row of tokens without sense.
func (g *generator) soup() string {
	var b strings.Builder
	for range 1 + g.IntN(12) {
		b.WriteString(g.pick(`{`, `}`, `[`, `]`, `:`, `,`, `{`, `}`, `"execute"`, `"id"`, `"a"`, ` `, "\n", "\t", g.scalar(), g.scalar()))
	}
	return b.String()
}

func (g *generator) request() string {
	members := []string{`"execute":` + g.pick(`"query-jobs"`, `"query-jobs"`, `'query-jobs'`, `"no-such"`, g.scalar())}
	for range g.IntN(4) {
		members = append(members, g.pick(`"id"`, `"id"`, `"id"`, `"arguments"`, g.pick(`"exec-oob"`, g.text()))+g.pick(":", ": ")+g.value(0))
	}
	g.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	return "{" + strings.Join(members, g.pick(",", ", ", " ,\r\n")) + "}"
}

func (g *generator) value(depth int) string {
	kind := g.IntN(6)
	if depth > 4 {
		kind = 0
	}
	var parts []string
	switch kind {
	case 1:
		for range g.IntN(4) {
			parts = append(parts, g.value(depth+1))
		}
		return "[" + strings.Join(parts, ",") + "]"
	case 2:
		for range g.IntN(20) {
			parts = append(parts, g.text()+":"+g.value(depth+2))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	return g.scalar()
}

func (g *generator) scalar() string {
	switch g.IntN(4) {
	case 0:
		return g.number()
	case 1:
		if g.rarely() {
			return g.pick("nul", "True", "truex", "x")
		}
		return g.pick("true", "false", "null")
	}
	return g.text()
}

func (g *generator) number() string {
	if g.rarely() {
		return g.pick("00", "01", "-01", "1.", ".5", "1e", "1e+", "-", "+1", "0x1", "1a")
	}
	sign := g.pick("", "", "-")
	switch g.IntN(6) {
	case 0:
		return sign + g.pick("0", "1", "9223372036854775807", "9223372036854775808", "9223372036854775809",
			"18446744073709551615", "18446744073709551616", "1e400", "1e-400", "4.9e-324", "0.0")
	case 1:
		return sign + fmt.Sprint(g.Uint64())
	case 2:
		return sign + fmt.Sprint(g.Float64()*1000)
	case 3:
		return sign + fmt.Sprintf("%d%se%s%d", g.IntN(100), g.pick("", ".5", ".25", ".123456789"), g.pick("", "+", "-"), g.IntN(330))
	}
	return sign + fmt.Sprint(g.IntN(1<<g.IntN(40)))
}

// text is a string, mostly a valid one.
func (g *generator) text() string {
	quote := g.pick(`"`, `"`, `"`, `'`)
	var b strings.Builder
	b.WriteString(quote)
	if g.rarely() {
		b.WriteString(g.pick(`\x`, `\u12`, `\ud800`, `\udc00`, `\uffff`, `\ufdd0`, "\t", "\x80", "\xc3", "\xe2\x82", "\xed\xa0\x80", "\xf4\x90\x80\x80"))
	}
	for range g.IntN(8) {
		switch g.IntN(12) {
		case 0:
			b.WriteString(g.pick(`\"`, `\'`, `\\`, `\/`, `\b`, `\f`, `\n`, `\r`, `\t`))
		case 1:
			b.WriteString(g.pick("\xc0\x80", "\x7f", `\u0000`))
		case 2:
			fmt.Fprintf(&b, g.pick(`\u%04x`, `\u%04X`), g.IntN(0xD800))
		case 3:
			fmt.Fprintf(&b, `\ud8%02x\udc%02x`, g.IntN(256), g.IntN(256))
		case 4:
			b.WriteRune(rune(0x80 + g.IntN(0x700)))
		case 5:
			b.WriteRune(rune(0x10000 + g.IntN(0x100000)))
		case 6:
			b.WriteRune(rune(0x800 + g.IntN(0xD000)))
		default:
			b.WriteByte("abcxyz-_09"[g.IntN(10)])
		}
	}
	b.WriteString(quote)
	return b.String()
}

// damage changes a few bytes.
func (g *generator) damage(text []byte) []byte {
	for range 1 + g.IntN(3) {
		at := g.IntN(len(text))
		switch g.IntN(4) {
		case 0:
			text = slices.Delete(text, at, at+1)
		case 1:
			text[at] = byte(g.IntN(256))
		case 2:
			text = slices.Insert(text, at, byte(g.IntN(256)))
		case 3:
			text = slices.Insert(text, at, []byte(g.pick(`{`, `}`, `[`, `]`, `:`, `,`, `"`, `'`, `\`, "\n", "@"))...)
		}
		if len(text) == 0 {
			return text
		}
	}
	return text
}

// The reference's nesting and duplicates at depth, which random input never
// reaches.
func TestDepthBesideTheReference(t *testing.T) {
	t.Parallel()
	reference, ours := startReference(t), start(t).connect()
	for i, text := range []string{
		strings.Repeat(`{"a":`, 1024) + strings.Repeat(`}`, 1030),
		strings.Repeat(`{"a":`, 1025) + strings.Repeat(`}`, 1030),
		strings.Repeat(`[{"a":`, 512) + `[` + strings.Repeat(`}]`, 512),
		strings.Repeat(`[`, 3000) + strings.Repeat(`]`, 3000),
		strings.Repeat(`[`, 1000) + strings.Repeat(`}`, 1000) + strings.Repeat(`]`, 10),
		`{"execute":"query-jobs","id":{` + members(100) + `}}`,
		`{"execute":"query-jobs","id":{` + members(100) + `,"member 7":1}}`,
		`{"execute":"query-jobs",` + members(100) + `}`,
		strings.Repeat("x", 3000) + "\n'" + strings.Repeat("y", 3000) + "\n",
	} {
		all := fmt.Sprintf("%s\xff{\"execute\":\"query-jobs\",\"id\":\"mark %d\"}", text, i)
		failed := make(chan error, 1)
		go func() {
			_, err := io.WriteString(reference, all)
			_, err2 := io.WriteString(ours, all)
			failed <- errors.Join(err, err2)
		}()
		want, got := untilMark(t, reference.r, i), untilMark(t, ours.r, i)
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
		compare(t, got, want, []byte(text))
	}
}

func members(n int) string {
	var parts []string
	for i := range n {
		parts = append(parts, fmt.Sprintf(`"member %d":%d`, i, i))
	}
	return strings.Join(parts, ",")
}
