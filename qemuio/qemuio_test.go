package qemuio_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/null"
	"github.com/qmpblock/qmpblock/qemuio"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// on runs commands on a node and returns what they print.
func on(t *testing.T, bench *drivertest.Bench, node string, commands ...string) string {
	t.Helper()
	var out bytes.Buffer
	bench.Main(func(l *aio.Lock) {
		blk := bench.Graph.NewBackend("", block.PermAll, block.PermAll)
		defer blk.Close(l)
		if err := blk.Insert(l, bench.Graph.Node(node)); err != nil {
			t.Error(err)
			return
		}
		s := qemuio.New(blk, &out)
		defer s.Close(l)
		for _, c := range commands {
			if err := s.Run(l, c); err != nil {
				fmt.Fprintln(&out, err)
			}
		}
	})
	return normalize(out.String())
}

// TestAioRunsTogether: requests in the background overlap, and aio_flush waits
// for all of them.
func TestAioRunsTogether(t *testing.T) {
	t.Parallel()
	const latency = 50 * time.Millisecond
	bench := drivertest.New(t, null.Co())
	bench.Add(fmt.Sprintf(`{"driver":"null-co","node-name":"n","size":1048576,"latency-ns":%d}`, latency))
	var commands []string
	for range 20 {
		commands = append(commands, "aio_read -q 0 512")
	}
	start := time.Now()
	got := on(t, bench, "n", append(commands, "aio_flush", "length")...)
	if took := time.Since(start); got != "1 MiB\n" || took < latency || took > 10*latency {
		t.Errorf("20 requests of %v took %v and printed %q", latency, took, got)
	}
	bench.Delete("n")
}

// TestCloseWaits: what was begun is printed before the session is over.
func TestCloseWaits(t *testing.T) {
	t.Parallel()
	bench := drivertest.New(t, null.Co())
	bench.Add(`{"driver":"null-co","node-name":"n","size":1048576,"latency-ns":20000000}`)
	want := "wrote 512/512 bytes at offset 0\n512 bytes, 1 ops; TIME\n"
	if got := on(t, bench, "n", "aio_write 0 512"); got != want {
		t.Errorf("printed %q", got)
	}
	bench.Delete("n")
}

// TestAccounting: only aio requests count as what a backend's user does, and
// of those no zeroes.
func TestAccounting(t *testing.T) {
	t.Parallel()
	bench := drivertest.New(t, null.Co())
	bench.Add(`{"driver":"null-co","node-name":"n","size":1048576}`)
	blk := bench.Use(bench.Graph.Node("n"))
	bench.Main(func(l *aio.Lock) {
		s := qemuio.New(blk, &strings.Builder{})
		defer s.Close(l)
		for _, c := range []string{
			"read 0 512", "write 0 512", "aio_read 0 512", "aio_read -q 0 1k", "aio_write 0 512", "aio_write -z 0 1k",
			"aio_read -i 0 1", "aio_write -i 0 1", "aio_write -zi 0 1", "aio_read 5M 5", "aio_write 5M 5", "aio_write -z 5M 5",
		} {
			if err := s.Run(l, c); err != nil {
				t.Errorf("%s: %v", c, err)
			}
		}
	})
	check := func(name string, op block.Op, want block.OpCounts) {
		t.Helper()
		got := blk.Stats().Counts(op)
		got.TotalNS = 0
		if got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	check("read", block.OpRead, block.OpCounts{Bytes: 1536, Ops: 2, Failed: 1, Invalid: 1})
	check("write", block.OpWrite, block.OpCounts{Bytes: 512, Ops: 1, Failed: 1, Invalid: 2})
}

// TestRefused: what would end or block the server is refused in words.
func TestRefused(t *testing.T) {
	t.Parallel()
	bench := drivertest.New(t, null.Co())
	bench.Add(`{"driver":"null-co","node-name":"n"}`)
	for command, want := range map[string]string{
		"abort":        "abort is refused: it would end the server\n",
		"abort x":      "bad argument count 1 to abort, expected 0 arguments\n",
		"sigraise 9":   "sigraise is refused: it could end the server\n",
		"sigraise x":   "Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- x\n",
		"wait_break a": "Could not wait for breakpoint a: Operation not supported\n",
		"open /x":      "command \"open\" not found\n",
		"quit":         "command \"quit\" not found\n",
		"close":        "command \"close\" not found\n",
		"":             "",
		"   ":          "",
	} {
		if got := on(t, bench, "n", command); got != want {
			t.Errorf("%s: %q", command, got)
		}
	}
	bench.Delete("n")
}

// TestWithoutMedium: what commands say of an empty drive.
func TestWithoutMedium(t *testing.T) {
	t.Parallel()
	bench := drivertest.New(t)
	blk := bench.Graph.NewBackend("", 0, block.PermAll)
	bench.Main(func(l *aio.Lock) {
		defer blk.Close(l)
		for _, c := range []struct{ command, out, report string }{
			{"read 0 512", "read failed: No medium found\n", ""},
			{"read -b 0 512", "read failed: No medium found\n", ""},
			{"write 0 512", "write failed: No medium found\n", ""},
			{"write -c 0 512", "write failed: No medium found\n", ""},
			{"write -z 0 5", "write failed: No medium found\n", ""},
			{"readv 0 5", "readv failed: No medium found\n", ""},
			{"writev 0 5", "writev failed: No medium found\n", ""},
			{"discard 0 5", "discard failed: No medium found\n", ""},
			{"flush", "", ""},
			{"length", "getlength: No medium found\n", ""},
			{"map", "", "Failed to query image length: No medium found"},
			{"truncate 5", "", "No medium inserted"},
			{"zone_report 0 1", "zone report failed: No medium found\n", ""},
			{"zone_open 0 1", "zone open failed: No medium found\n", ""},
			{"zone_append 0 1 2", "zone append failed: No medium found\n", ""},
			{"break a b", "Could not set breakpoint: Operation not supported\n", ""},
			{"info", "getlength: No medium found\n", ""},
			{"alloc 0", "getlength: No medium found\n", ""},
			{"reopen -r", "getlength: No medium found\n", ""},
			{"aio_read 0 5", "readv failed: No medium found\n", ""},
			{"aio_write 0 5", "aio_write failed: No medium found\n", ""},
			{"aio_write -z 0 5", "aio_write failed: No medium found\n", ""},
		} {
			var out bytes.Buffer
			s := qemuio.New(blk, &out)
			report := ""
			if err := s.Run(l, c.command); err != nil {
				report = err.Error()
			}
			s.Close(l)
			if out.String() != c.out || report != c.report {
				t.Errorf("%s: %q and %q", c.command, out.String(), report)
			}
		}
	})
}

// TestHMP: the replies of the human monitor's command, which are the
// reference's.
func TestHMP(t *testing.T) {
	t.Parallel()
	bench := drivertest.New(t, null.Co())
	n := bench.Add(`{"driver":"null-co","node-name":"n","size":1048576,"read-zeroes":true}`)
	bench.Add(`{"driver":"null-co","node-name":"ro","size":1048576,"read-only":true}`)
	bench.Add(`{"driver":"null-co","node-name":"free"}`)
	blk, err := bench.TryUse(n, block.PermConsistentRead|block.PermWrite, block.PermConsistentRead|block.PermWriteUnchanged|block.PermResize)
	if err != nil {
		t.Fatal(err)
	}
	blk.SetDevice("hd")
	backend := func(id string) (*block.Backend, error) {
		if id == "hd" {
			return blk, nil
		}
		return nil, qerr.WithClass(qerr.DeviceNotFound, "Device '%s' not found", id)
	}
	for _, c := range []struct{ args, reply, out string }{
		{`n "read 0 512"`, "", "read 512/512 bytes at offset 0\n512 bytes, 1 ops; TIME\n"},
		{`n length`, "", "1 MiB\n"},
		{`n "aio_read 0 512"`, "", "read 512/512 bytes at offset 0\n512 bytes, 1 ops; TIME\n"},
		{`n ""`, "", ""},
		{`n "bogus"`, "", "command \"bogus\" not found\n"},
		{`n "write"`, "", "bad argument count 0 to write, expected at least 2 arguments\n"},
		{
			`n "write 0 512"`,
			"Permission conflict on node 'n': permissions 'write' are both required by an unnamed block device (uses node 'n' as 'root' child) and unshared by block device 'hd' (uses node 'n' as 'root' child).\r\n", "",
		},
		{`-d hd "write 0 512"`, "", "wrote 512/512 bytes at offset 0\n512 bytes, 1 ops; TIME\n"},
		{`ro "write 0 512"`, "Block node is read-only\r\n", ""},
		{`nope "read 0 512"`, "Error: Cannot find device='' nor node-name='nope'\r\n", ""},
		{`hd "read 0 512"`, "Error: Cannot find device='' nor node-name='hd'\r\n", ""},
		{`-d nope "read 0 512"`, "Error: Device 'nope' not found\r\n", ""},
		{`-d hd "reopen -c writethrough"`, "Cannot change cache.writeback: Device attached\r\n", ""},
		{`n "reopen -o x"`, "warning: short-form boolean option 'x' deprecated\r\nPlease use x=on instead\r\nCannot change the option 'x'\r\n", ""},
		{`free "truncate 5"`, "Image format driver does not support resize\r\n", ""},
		{`n`, "qemu-io: string expected\r\nTry \"help qemu-io\" for more information\r\n", ""},
		{`n "read`, "qemu-io: string expected\r\nTry \"help qemu-io\" for more information\r\n", "unterminated string\n"},
	} {
		var out bytes.Buffer
		reply := ""
		bench.Main(func(l *aio.Lock) { reply = qemuio.HMP(l, bench.Graph, backend, c.args, &out) })
		if reply != c.reply || normalize(out.String()) != c.out {
			t.Errorf("qemu-io %s: %q, printed %q", c.args, reply, out.String())
		}
	}
	users := 0
	n.Parents(func(*block.Child) bool { users++; return true })
	if users != 1 {
		t.Errorf("%d users are left on the node", users)
	}
}

// TestDeviceKeepsPermissions: what a command took in a device's name stays
// with the device, as in the reference.
func TestDeviceKeepsPermissions(t *testing.T) {
	t.Parallel()
	bench := drivertest.New(t, null.Co())
	n := bench.Add(`{"driver":"null-co","node-name":"n"}`)
	blk, err := bench.TryUse(n, block.PermConsistentRead, block.PermAll)
	if err != nil {
		t.Fatal(err)
	}
	bench.Main(func(l *aio.Lock) {
		qemuio.HMP(l, bench.Graph, func(string) (*block.Backend, error) { return blk, nil }, `-d x "write 0 512"`, &bytes.Buffer{})
	})
	if perm := blk.Root().Perm(); perm != block.PermConsistentRead|block.PermWrite {
		t.Errorf("the device has %v", perm)
	}
}

// TestSessionsTogether: sessions on one node run at the same time.
func TestSessionsTogether(t *testing.T) {
	t.Parallel()
	bench := drivertest.New(t)
	bench.Add(`{"driver":"mem","node-name":"m","size":65536}`)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			at, pattern := i*4096, i+1
			out := on(t, bench, "m",
				fmt.Sprintf("aio_write -q -P %d %d 4k", pattern, at), "aio_flush",
				fmt.Sprintf("aio_read -q -P %d %d 4k", pattern, at), "aio_flush",
				fmt.Sprintf("read -q -P %d %d 4k", pattern, at))
			if out != "" {
				t.Errorf("session %d: %s", i, out)
			}
		}()
	}
	wg.Wait()
}

// TestRandomLines gives random lines to the reference and to us.
func TestRandomLines(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a program hundreds of times")
	}
	program := filepath.Join(filepath.Dir(daemon.Reference(t).Storage[0]), "qemu-io")
	if _, err := exec.LookPath(program); err != nil {
		daemon.Missing(t, err.Error())
	}
	reference, ours := newReference(t), newOurs(t)
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		line := randomLine(r)
		want := normalize(reference([]string{line}))
		if got := normalize(ours([]string{line})); got != want {
			t.Errorf("%s\n  reference: %q\n  ours:      %q", line, want, got)
		}
	}
}

// randomLine makes a line that is sometimes right and often nearly.
func randomLine(r *rand.Rand) string {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	command := pick("read", "read", "write", "write", "readv", "writev", "aio_read", "aio_write", "discard", "alloc", "truncate",
		"reopen", "zone_open", "zone_append", "help", "sleep", "map", "length", "break")
	words := []string{command}
	if command == "help" {
		return "help " + pick("read", "w", "bogus") // the program has more commands to list
	}
	for range r.IntN(4) {
		option := "-" + pick("C", "q", "v", "z", "u", "f", "n", "b", "c", "p", "r", "x", "zu", "qC", "vq", "zf", "bq", "-")
		// Registered buffers make the reference's aio commands abort.
		if strings.HasPrefix(command, "aio") && strings.Contains(option, "r") {
			continue
		}
		words = append(words, option)
	}
	for range r.IntN(2) {
		words = append(words, pick("-P 5", "-P0xcd", "-P 300", "-l 5", "-s 7", "-l 1k", "-m off", "-m bogus", "-c none", "-o discard=unmap", "-o x=1"))
	}
	for range r.IntN(4) {
		words = append(words, pick("0", "512", "1k", "64k", "1", "100", "0x200", "1M", "1048575", "2M", "x", "1.5k", "0.1", "3G", "-1", "+5", "8E", "1kk"))
	}
	if r.IntN(2) == 0 {
		r.Shuffle(len(words)-1, func(i, j int) { words[i+1], words[j+1] = words[j+1], words[i+1] })
	}
	return strings.Join(words, " ")
}
