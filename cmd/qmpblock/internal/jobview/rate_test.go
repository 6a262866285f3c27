package jobview

import (
	"math"
	"testing"
	"time"
)

// progressed lets a job do steps of a size, one every second.
func progressed(r *rate, from time.Time, steps int, size int64) time.Time {
	for range steps {
		from = from.Add(time.Second)
		r.sample(from, r.done+size, true)
	}
	return from
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > want/100 {
		t.Errorf("%s: %g a second, want %g", what, got, want)
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	var r rate
	if left, known := r.left(1); known {
		t.Errorf("from nothing: %v", left)
	}
	now := time.Unix(1000, 0)
	r.sample(now, 1<<30, true) // was done before
	near(t, "at first", r.perSecond(), 0)
	now = progressed(&r, now, 1, 1000)
	near(t, "after a step", r.perSecond(), 1000)
	now = progressed(&r, now, 20, 1000)
	near(t, "when steady", r.perSecond(), 1000)
	if left, known := r.left(90_000); left != 90*time.Second || !known {
		t.Errorf("left: %v, %v", left, known)
	}
	r.sample(now.Add(stall/2), r.done, true)
	near(t, "between steps", r.perSecond(), 1000)

	r.sample(now, r.done, false)
	now = now.Add(time.Hour)
	r.sample(now, r.done, false)
	near(t, "paused", r.perSecond(), 1000)
	now = progressed(&r, now, 1, 1000)
	near(t, "resumed", r.perSecond(), 1000)

	now = progressed(&r, now, 60, 4000)
	near(t, "faster", r.perSecond(), 4000)
	r.sample(now.Add(memory), r.done, true)
	near(t, "stalled", r.perSecond(), 4000/math.E)
	r.sample(now.Add(10000*memory), r.done, true)
	if left, known := r.left(math.MaxInt64); known {
		t.Errorf("for ever: %v", left)
	}
}

func TestState(t *testing.T) {
	t.Parallel()
	steady := &rate{}
	now := time.Unix(1000, 0)
	steady.sample(now, 0, true)
	progressed(steady, now, 4, 1<<20)
	for want, j := range map[string]Job{
		"0.0 b/s":              {Status: running, Block: true, Total: -1, Done: 0},
		"1.0 MiB/s 10s left":   {Status: running, Block: true, Done: 4 << 20, Total: 14 << 20},
		"":                     {Status: running},
		"paused":               {Status: "paused", Block: true},
		"paused, nospace":      {Status: "paused", Block: true, IOStatus: "nospace"},
		"aborting, failed: No": {Status: "aborting", Error: "No"},
		"failed":               {Status: concluded, Result: Failed, Error: "No"},
		"cancelled":            {Status: concluded, Result: Cancelled, Error: "Operation canceled"},
		"null":                 {Status: null},
	} {
		r := steady
		if j.Total < 0 {
			r = &rate{}
		}
		if got := state(&j, r); got != want {
			t.Errorf("%+v: %q, want %q", j, got, want)
		}
	}
}
