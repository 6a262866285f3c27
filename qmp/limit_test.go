package qmp

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// fakeClock stands still until it is set forward.
type fakeClock struct {
	now    time.Time
	timers []*fakeTimer
}

type fakeTimer struct {
	at   time.Time
	f    func()
	done bool
}

func (c *fakeClock) Now() time.Time { return c.now }

func (c *fakeClock) AfterFunc(d time.Duration, f func()) func() bool {
	t := &fakeTimer{at: c.now.Add(d), f: f}
	c.timers = append(c.timers, t)
	return func() bool {
		stopped := !t.done
		t.done = true
		return stopped
	}
}

// forward lets time pass and calls what is due, in order.
func (c *fakeClock) forward(d time.Duration) {
	end := c.now.Add(d)
	for {
		var next *fakeTimer
		for _, t := range c.timers {
			if !t.done && !t.at.After(end) && (next == nil || t.at.Before(next.at)) {
				next = t
			}
		}
		if next == nil {
			break
		}
		c.now, next.done = next.at, true
		next.f()
	}
	c.now = end
	c.timers = slices.DeleteFunc(c.timers, func(t *fakeTimer) bool { return t.done })
}

type limitTest struct {
	clock *fakeClock
	e     *Emitter
	got   []string
}

func newLimitTest(t *testing.T) *limitTest {
	l := &limitTest{clock: &fakeClock{now: time.Unix(0, 0)}}
	l.e = NewEmitter(newTable(), l.clock, nil)
	l.e.Subscribe(func(name string, data []byte, seconds, microseconds int64) {
		at := l.clock.now.Sub(time.Unix(0, 0)).Milliseconds()
		l.got = append(l.got, fmt.Sprintf("%d: %s %s of %d", at, name, data, seconds*1000+microseconds/1000))
	})
	t.Cleanup(l.e.Close)
	return l
}

// emit emits an event at a time in milliseconds.
func (l *limitTest) emit(at int64, name, data string) {
	l.at(at)
	l.e.mu.Lock()
	defer l.e.mu.Unlock()
	now := l.clock.Now()
	l.e.pass(&occurrence{name: name, data: []byte(data), seconds: now.Unix(), microseconds: int64(now.Nanosecond() / 1000)})
}

func (l *limitTest) at(ms int64) {
	l.clock.forward(time.Unix(0, ms*1e6).Sub(l.clock.now))
}

func (l *limitTest) expect(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(l.got, want) {
		t.Errorf("\n got %q\nwant %q", l.got, want)
	}
}

// Which of two timers runs first, when both are due, does not matter.
func TestLimitOrder(t *testing.T) {
	t.Parallel()
	l := newLimitTest(t)
	for range 2 {
		l.emit(0, "QUORUM_FAILURE", `{"n": 1}`)
		l.emit(0, "QUORUM_REPORT_BAD", `{"node-name": "a"}`)
	}
	for _, timer := range []*fakeTimer{l.clock.timers[1], l.clock.timers[0]} {
		timer.done = true
		timer.f()
	}
	l.expect(t,
		`0: QUORUM_FAILURE {"n": 1} of 0`, `0: QUORUM_REPORT_BAD {"node-name": "a"} of 0`,
		`0: QUORUM_FAILURE {"n": 1} of 0`, `0: QUORUM_REPORT_BAD {"node-name": "a"} of 0`)
}

func TestLimit(t *testing.T) {
	t.Parallel()
	l := newLimitTest(t)
	for i := range 5 {
		l.emit(int64(100*i), "QUORUM_FAILURE", fmt.Sprintf(`{"n": %d}`, i))
	}
	// The last of a burst is sent when the second is over, and begins another.
	l.emit(1500, "QUORUM_FAILURE", `{"n": 5}`)
	l.emit(1600, "QUORUM_FAILURE", `{"n": 6}`)
	// A second without any ends it.
	l.emit(3500, "QUORUM_FAILURE", `{"n": 7}`)
	l.emit(4500, "QUORUM_FAILURE", `{"n": 8}`)
	l.emit(4501, "QUORUM_FAILURE", `{"n": 9}`)
	l.at(6000)
	l.expect(t,
		`0: QUORUM_FAILURE {"n": 0} of 0`,
		`1000: QUORUM_FAILURE {"n": 4} of 400`,
		`2000: QUORUM_FAILURE {"n": 6} of 1600`,
		`3500: QUORUM_FAILURE {"n": 7} of 3500`,
		`4500: QUORUM_FAILURE {"n": 8} of 4500`,
		`5500: QUORUM_FAILURE {"n": 9} of 4501`,
	)
	if len(l.e.limits) != 0 {
		l.at(10_000)
	}
	if len(l.e.limits) != 0 || len(l.clock.timers) != 0 {
		t.Errorf("%d limits and %d timers are left over", len(l.e.limits), len(l.clock.timers))
	}
}

func TestSimilarEvents(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, one, other string
		apart            bool
	}{
		{"QUORUM_REPORT_BAD", `{"node-name": "a"}`, `{"node-name": "b"}`, true},
		{"QUORUM_REPORT_BAD", `{"node-name": "a", "sector-num": 1}`, `{"node-name": "a", "sector-num": 2}`, false},
		{"QUORUM_FAILURE", `{"reference": "a"}`, `{"reference": "b"}`, false},
		{"BLOCK_IO_ERROR", `{"qom-path": "/a"}`, `{"qom-path": "/b"}`, true},
		{"BLOCK_IO_ERROR", `{"qom-path": "/a"}`, `{"qom-path": "/a"}`, false},
		{"VSERPORT_CHANGE", `{"id": "a"}`, `{"id": "b"}`, true},
		{"MEMORY_DEVICE_SIZE_CHANGE", `{"qom-path": "/a"}`, `{"qom-path": "/b"}`, true},
		{"RTC_CHANGE", `{"offset": 1}`, `{"offset": 2}`, false},
		{"WATCHDOG", `{"action": "reset"}`, `{"action": "none"}`, false},
		{"BALLOON_CHANGE", `{"actual": 1}`, `{"actual": 2}`, false},
		{"JOB_STATUS_CHANGE", `{"id": "a"}`, `{"id": "a"}`, true},
		{"BLOCK_JOB_ERROR", `{"device": "a"}`, `{"device": "a"}`, true},
	} {
		l := newLimitTest(t)
		l.emit(0, c.name, c.one)
		l.emit(1, c.name, c.other)
		if apart := len(l.got) == 2; apart != c.apart {
			t.Errorf("%s %s and %s: apart is %v", c.name, c.one, c.other, apart)
		}
	}
}

func TestCloseDropsWhatIsHeldBack(t *testing.T) {
	t.Parallel()
	l := newLimitTest(t)
	l.emit(0, "RTC_CHANGE", `{}`)
	l.emit(1, "RTC_CHANGE", `{}`)
	l.e.Close()
	l.at(5000)
	l.expect(t, `0: RTC_CHANGE {} of 0`)
}
