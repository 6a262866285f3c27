package quorum_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/qerr"
)

// A state is what each child holds at a place, 0 where it cannot be read.
type state []byte

const (
	unreadable = 0
	place      = 700 // in sectors 1 and 2
	length     = 900
)

// expected says in the plainest way what a read of the state gives: the value, or
// the error, and what is reported.
func (s state) expected(threshold int) (value byte, err string, reports []string) {
	votes := map[byte]int{}
	for i, value := range s {
		if value == unreadable {
			reports = append(reports, fmt.Sprintf("d%d read 1+3 No space left on device", i))
		}
		votes[value]++
	}
	failed := func(err string) (byte, string, []string) { return 0, err, append(reports, "q failed 1+3") }
	if len(s)-votes[unreadable] < threshold {
		return failed("No space left on device")
	}
	first := func(value byte) int { return slices.Index(s, value) }
	var values []byte // that which came last first
	for value := range votes {
		if value != unreadable {
			values = append(values, value)
		}
	}
	slices.SortFunc(values, func(a, b byte) int { return first(b) - first(a) })
	winner := values[0]
	for _, value := range values {
		if votes[value] > votes[winner] {
			winner = value
		}
	}
	if votes[winner] < threshold {
		return failed("Input/output error")
	}
	for _, value := range values {
		for i, other := range slices.Backward(s) {
			if value != winner && other == value {
				reports = append(reports, fmt.Sprintf("d%d read 1+3 ", i))
			}
		}
	}
	return winner, "", reports
}

func (v *voters) set(s state) {
	for i, value := range s {
		d := v.disk(i)
		d.SetHook(nil)
		v.put(i, place, value, length)
		if value == unreadable {
			d.SetHook(func(_ *aio.Co, c drivertest.Call) error {
				if c.Op == drivertest.Read {
					return qerr.WithErrno(syscall.ENOSPC, "with a text that nobody keeps")
				}
				return nil
			})
		}
	}
}

// Every state of up to four children that have three things or none.
func TestVotes(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 4; n++ {
		for threshold := 1; threshold <= n; threshold++ {
			v := newVoters(t, n, fmt.Sprintf(`"vote-threshold":%d`, threshold))
			for code := range 1 << (2 * n) {
				s := make(state, n)
				for i := range s {
					s[i] = byte(code >> (2 * i) & 3)
				}
				v.set(s)
				value, want, reports := s.expected(threshold)
				got, err := v.read(place, length)
				if text(err) != want || err == nil && !bytes.Equal(got, bytes.Repeat([]byte{value}, length)) {
					t.Errorf("%v, %d of %d: %v, %v; want %d, %s", s, threshold, n, got[:4], err, value, want)
				}
				if got := v.take(); !slices.Equal(sorted(got), sorted(reports)) || lastOf(got) != lastOf(reports) {
					t.Errorf("%v, %d of %d: reported %q, want %q", s, threshold, n, got, reports)
				}
			}
		}
	}
}

// sorted: children that fail are reported as they do.
func sorted(reports []string) []string { return slices.Sorted(slices.Values(reports)) }

func lastOf(reports []string) string {
	if len(reports) == 0 {
		return ""
	}
	return reports[len(reports)-1]
}

// Children that were outvoted are written to; those that failed, or when nobody
// has won, are not.
func TestRewrite(t *testing.T) {
	t.Parallel()
	v := newVoters(t, 4, `"vote-threshold":2,"rewrite-corrupted":true`)
	v.set(state{1, 2, unreadable, 2})
	if got, err := v.read(place, length); err != nil || got[0] != 2 {
		t.Fatalf("%v, %v", got[:4], err)
	}
	for i, want := range [][]string{{"read 700+900", "write 700+900"}, {"read 700+900"}, {"read 700+900"}, {"read 700+900"}} {
		if got := v.disk(i).TakeCalls(); !slices.Equal(got, want) {
			t.Errorf("child %d got %q, want %q", i, got, want)
		}
	}
	if !bytes.Equal(v.disk(0).Bytes(), v.disk(1).Bytes()) {
		t.Error("they still differ")
	}
	v.take()
	v.set(state{1, 2, 3, unreadable})
	if _, err := v.read(place, length); text(err) != "Input/output error" {
		t.Fatal(err)
	}
	// One that cannot be written to does not matter.
	v.set(state{1, 2, 3, 2})
	v.disk(2).SetHook(failing(drivertest.Write, syscall.EROFS))
	if got, err := v.read(place, length); err != nil || got[0] != 2 {
		t.Fatalf("%v, %v", got[:4], err)
	}
	want := []string{"q failed 1+3", "d2 read 1+3 ", "d0 read 1+3 "}
	if got := v.take()[1:]; !slices.Equal(got, want) {
		t.Errorf("reported %q, want %q", got, want)
	}
	if v.disk(0).Bytes()[place] != 2 || v.disk(2).Bytes()[place] != 3 {
		t.Error("the wrong one was corrected")
	}
}

func failing(op string, errno syscall.Errno) func(*aio.Co, drivertest.Call) error {
	return func(_ *aio.Co, c drivertest.Call) error {
		if c.Op == op {
			return errno
		}
		return nil
	}
}

// The error that most children had is the request's, the last one if there are
// several.
func TestErrors(t *testing.T) {
	t.Parallel()
	const a, b, c = syscall.ENOSPC, syscall.EACCES, syscall.ENOENT
	for _, errs := range []struct {
		children []syscall.Errno
		want     syscall.Errno
	}{
		{[]syscall.Errno{a, b}, b},
		{[]syscall.Errno{b, a}, a},
		{[]syscall.Errno{a, b, c}, c},
		{[]syscall.Errno{a, a, b}, a},
		{[]syscall.Errno{a, b, a, b, c}, b},
	} {
		v := newVoters(t, len(errs.children), `"vote-threshold":1`)
		for i, errno := range errs.children {
			v.disk(i).SetHook(func(*aio.Co, drivertest.Call) error { return errno })
		}
		want := qerr.Strerror(errs.want)
		if _, err := v.read(0, 512); text(err) != want {
			t.Errorf("reading %v: %v", errs.children, err)
		}
		if err := v.blk.PwriteZeroes(aio.Outside, 0, 512, 0); text(err) != want {
			t.Errorf("writing %v: %v", errs.children, err)
		}
		if err := v.blk.Flush(aio.Outside); text(err) != want {
			t.Errorf("flushing %v: %v", errs.children, err)
		}
	}
}

func TestFifo(t *testing.T) {
	t.Parallel()
	v := newVoters(t, 3, `"vote-threshold":3,"read-pattern":"fifo","rewrite-corrupted":true`)
	v.set(state{unreadable, 2, 3})
	if got, err := v.read(place, length); err != nil || got[0] != 2 {
		t.Errorf("%v, %v", got[:4], err)
	}
	if got := v.disk(2).TakeCalls(); len(got) > 0 {
		t.Errorf("the last one got %q", got)
	}
	v.set(state{unreadable, unreadable, unreadable})
	v.disk(2).SetHook(failing(drivertest.Read, syscall.EACCES))
	if _, err := v.read(place, length); text(err) != "Permission denied" {
		t.Errorf("%v", err)
	}
	want := []string{
		"d0 read 1+3 No space left on device",
		"d0 read 1+3 No space left on device", "d1 read 1+3 No space left on device", "d2 read 1+3 Permission denied",
	}
	if got := v.take(); !slices.Equal(got, want) {
		t.Errorf("reported %q, want %q", got, want)
	}
}

func TestBlkverify(t *testing.T) {
	t.Parallel()
	v := newVoters(t, 2, `"vote-threshold":2,"blkverify":true`)
	if _, err := v.read(0, diskSize); err != nil {
		t.Fatal(err)
	}
	v.put(1, 1000, 1, 1)
	if _, err := v.read(100, 2000); text(err) != "Input/output error" {
		t.Errorf("%v", err)
	}
	if want := []string{"quorum: offset=100 bytes=2000 contents mismatch at offset 1000"}; !slices.Equal(v.notices, want) {
		t.Errorf("told %q", v.notices)
	}
	if got := v.take(); len(got) > 0 {
		t.Errorf("reported %q", got)
	}
}

// immediately reads with the flag that forbids waiting.
func (v *voters) immediately() (value byte, err error) {
	buf := make([]byte, 512)
	v.node.Context().Enter("immediate", func(co *aio.Co) { err = v.node.CoPreadv(co, 0, block.Vec{buf}, block.ReqImmediate) })
	return buf[0], err
}

// A read that must not wait succeeds if nothing is to be decided.
func TestImmediate(t *testing.T) {
	t.Parallel()
	for _, options := range []string{`"vote-threshold":1`, `"vote-threshold":2,"read-pattern":"fifo"`} {
		v := newBench(t)
		for i := range 2 {
			v.Add(fmt.Sprintf(`{"driver":"mem","node-name":"d%d","size":65536,"immediate":true}`, i))
			v.put(i, 0, 7, 512)
		}
		v.node = v.Add(`{"driver":"quorum","node-name":"q","children":["d0","d1"],` + options + `}`)
		v.blk = v.Use(v.node)
		if got, err := v.immediately(); err != nil || got != 7 {
			t.Errorf("%s: %d, %v", options, got, err)
		}
		v.put(1, 511, 8, 1)
		got, err := v.immediately()
		if fifo := options != `"vote-threshold":1`; fifo != (err == nil && got == 7) {
			t.Errorf("%s: %d, %v where they differ", options, got, err)
		}
		v.disk(0).SetHook(failing(drivertest.Read, syscall.EIO))
		if _, err := v.immediately(); text(err) != "Resource temporarily unavailable" {
			t.Errorf("%s: %v where one fails", options, err)
		}
		if got := v.take(); len(got) > 0 {
			t.Errorf("%s: reported %q", options, got)
		}
	}
}

// Reads and writes that overlap wait for each other, others do not.
func TestOverlaps(t *testing.T) {
	t.Parallel()
	v := newVoters(t, 2, `"vote-threshold":2`)
	writing, goOn := make(chan struct{}), make(chan struct{})
	v.disk(1).SetHook(func(co *aio.Co, c drivertest.Call) error {
		if c.Op == drivertest.Write && c.Offset == 0 {
			close(writing)
			co.Yield(func() { <-goOn })
		}
		return nil
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := v.blk.Pwritev(aio.Outside, 0, drivertest.Fill(1, 1024), 0); err != nil {
			t.Error(err)
		}
	})
	<-writing
	if got, err := v.read(1024, 512); err != nil || got[0] != 0 {
		t.Errorf("beside: %d, %v", got[0], err)
	}
	wg.Go(func() {
		if got, err := v.read(1023, 2); err != nil || got[0] != 1 || got[1] != 0 {
			t.Errorf("across its end: %v, %v", got, err)
		}
	})
	wg.Go(func() {
		if err := v.blk.PwriteZeroes(aio.Outside, 4096, 512, 0); err != nil {
			t.Error(err)
		}
	})
	if _, err := v.immediately(); text(err) != "Resource temporarily unavailable" {
		t.Errorf("at once: %v", err)
	}
	close(goOn)
	wg.Wait()
	if got := v.take(); len(got) > 0 {
		t.Errorf("reported %q", got)
	}
}

// Many readers and writers at once: no read finds children that differ, and in the
// end they do not.
func TestReadersAndWriters(t *testing.T) {
	t.Parallel()
	v := newVoters(t, 3, `"vote-threshold":3,"rewrite-corrupted":true`)
	const workers, rounds, places, size = 12, 60, 8, 4096
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(w)))
			for i := range rounds {
				offset := r.Int64N(places) * size / 2
				var err error
				switch i % 4 {
				case 0:
					err = v.blk.Pwritev(aio.Outside, offset, drivertest.Fill(byte(w*rounds+i), size), 0)
				case 1:
					err = v.blk.PwriteZeroes(aio.Outside, offset, size, 0)
				default:
					_, err = v.read(offset, size)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := v.take(); len(got) > 0 {
		t.Errorf("reported %q", got)
	}
	for i := 1; i < 3; i++ {
		if !bytes.Equal(v.disk(0).Bytes(), v.disk(i).Bytes()) {
			t.Errorf("child %d is another one", i)
		}
	}
}
