package jobs

import "time"

// slice is the time over which a [Limiter] evens work out.
const slice = 100 * time.Millisecond

// Limiter says how long to wait so that work goes at a limited speed. The first
// piece of work in each slice of time goes at once, however long it is; what it
// takes too much is made up for by waiting. The zero value has no limit. Only
// one goroutine uses it at a time.
type Limiter struct {
	quota      int64 // units for each slice; 0: no limit
	begin, end time.Time
	used       int64 // in the current slice
}

// SetSpeed sets the limit, in units a second; 0 is none. Work of the current
// slice counts as if it had been so all the time (observed:
// own/jobs/backup-speed).
func (r *Limiter) SetSpeed(speed int64) {
	if speed == 0 {
		*r = Limiter{}
		return
	}
	r.quota = max(speed/int64(time.Second/slice), 1)
}

// Delay is how long to wait before more work may be done, when n units have
// been done up to now that the limiter has not heard of.
func (r *Limiter) Delay(n int64, now time.Time) time.Duration {
	if r.quota == 0 {
		return 0
	}
	if !now.Before(r.end) {
		// The last slice, as long as it was made, is over.
		r.begin, r.end, r.used = now, now.Add(slice), 0
	}
	r.used += n
	if r.used < r.quota {
		return 0
	}
	// As many slices as the work should have taken.
	taken := float64(r.used) / float64(r.quota)
	length := time.Duration(min(taken*float64(slice), float64(maxDelay)))
	r.end = r.begin.Add(length)
	return r.end.Sub(now)
}

// maxDelay is longer than anybody waits.
const maxDelay = 1 << 62
