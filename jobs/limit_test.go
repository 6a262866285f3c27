package jobs

import (
	"testing"
	"time"
)

func TestLimiter(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	var r Limiter
	step := func(after time.Duration, n int64, want time.Duration) {
		t.Helper()
		now = now.Add(after)
		if got := r.Delay(n, now); got != want {
			t.Errorf("wait %v, want %v", got, want)
		}
	}
	step(0, 1<<40, 0)
	r.SetSpeed(1000) // 100 in 100 ms
	step(0, 50, 0)
	step(20*time.Millisecond, 50, 80*time.Millisecond)
	step(80*time.Millisecond, 1000, time.Second)
	step(200*time.Millisecond, 0, 800*time.Millisecond)
	step(800*time.Millisecond, 0, 0)
	step(0, 300, 300*time.Millisecond)
	r.SetSpeed(3000) // 300 have taken one slice then
	step(20*time.Millisecond, 0, 80*time.Millisecond)
	step(80*time.Millisecond, 0, 0)
	r.SetSpeed(1) // less than one in a slice is one
	step(0, 1, 100*time.Millisecond)
	if got := r.Delay(1<<62, now); got < time.Hour {
		t.Errorf("wait %v", got)
	}
	r.SetSpeed(0)
	step(0, 1, 0)
}

func TestProgress(t *testing.T) {
	t.Parallel()
	var p Progress
	p.SetRemaining(10)
	p.Add(4)
	p.Expect(2)
	if current, total := p.Get(); current != 4 || total != 12 {
		t.Errorf("%d of %d", current, total)
	}
}
