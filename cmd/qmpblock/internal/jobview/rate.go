package jobview

import (
	"math"
	"time"
)

// memory is the time over which a rate is averaged: the past counts for 1/e
// of what it did after that long.
const memory = 10 * time.Second

// stall is how long a running job may show no progress before that counts:
// progress comes in steps.
const stall = 3 * time.Second

// rate estimates how fast a job goes while it runs. The zero value knows
// nothing yet.
type rate struct {
	at      time.Time // of the last sample
	done    int64
	average float64       // a second; too low while the time is short
	over    time.Duration // the time that the average covers
}

// sample takes in how much is done at a moment. Time in which the job was not
// running does not count.
func (r *rate) sample(at time.Time, done int64, running bool) {
	passed, more := at.Sub(r.at), done-r.done
	first := r.at.IsZero()
	if running && more == 0 && passed < stall {
		return
	}
	r.at, r.done = at, done
	if first || !running || passed <= 0 {
		return
	}
	fresh := 1 - decay(passed)
	r.average += fresh * (float64(more)/passed.Seconds() - r.average)
	r.over += passed
}

// perSecond is the estimate; 0 if there is none.
func (r *rate) perSecond() float64 {
	if r.over == 0 {
		return 0
	}
	return r.average / (1 - decay(r.over))
}

// left is the time that the rest takes at this rate.
func (r *rate) left(rest int64) (time.Duration, bool) {
	seconds := float64(rest) / r.perSecond()
	if !(seconds >= 0 && seconds < math.MaxInt64/float64(time.Second)) {
		return 0, false
	}
	return time.Duration(seconds * float64(time.Second)).Round(time.Second), true
}

func decay(d time.Duration) float64 { return math.Exp(-d.Seconds() / memory.Seconds()) }
