package jobview

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// Bars shows jobs on a terminal, a bar each. Those that are over scroll away
// with the rest of the terminal's text.
type Bars struct {
	progress *mpb.Progress
	bars     map[string]*bar // by the job's id; those that are not over
}

// NewBars returns a view on a terminal.
func NewBars(terminal *os.File) *Bars {
	return &Bars{
		progress: mpb.New(mpb.WithOutput(terminal), mpb.PopCompletedMode()),
		bars:     map[string]*bar{},
	}
}

// Show brings a job's bar up to date.
func (b *Bars) Show(j Job) {
	s := b.bars[j.ID]
	if s == nil {
		s = newBar(b.progress)
		b.bars[j.ID] = s
	}
	s.set(j)
	if !j.Over() {
		return
	}
	delete(b.bars, j.ID)
	if j.Error != "" && j.Result == Failed {
		// On a line of its own: a bar leaves little room.
		fmt.Fprintf(b.progress, "%s: %s\n", j.ID, j.Error)
	}
}

// Close leaves the bars on the terminal.
func (b *Bars) Close() error {
	for _, s := range b.bars {
		s.shown.Abort(false)
	}
	b.progress.Wait()
	return b.progress.Error
}

// bar is one job's. It is drawn by a goroutine of the library's.
type bar struct {
	shown *mpb.Bar

	mu   sync.Mutex
	job  Job
	rate rate
}

func newBar(p *mpb.Progress) *bar {
	b := &bar{}
	column := func(text func() string, c decor.WC) decor.Decorator {
		return decor.Any(func(decor.Statistics) string { return text() }, c)
	}
	b.shown = p.New(0, mpb.BarStyle(),
		mpb.PrependDecorators(column(b.name, decor.WCSyncSpaceR)),
		mpb.AppendDecorators(column(b.done, decor.WCSyncSpace), column(b.state, decor.WC{})))
	return b
}

func (b *bar) set(j Job) {
	b.mu.Lock()
	b.job = j
	b.mu.Unlock()
	b.shown.SetTotal(j.Total, false)
	b.shown.SetCurrent(j.Done)
	switch {
	case j.Over() && j.Result == Completed:
		b.shown.SetTotal(j.Total, true)
	case j.Over():
		b.shown.Abort(false)
	}
}

func (b *bar) name() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.job.ID + " " + dash(b.job.Type)
}

func (b *bar) done() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return fmt.Sprintf("%d%% %s", b.job.Percent(), progress(&b.job))
}

func (b *bar) state() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	j := &b.job
	b.rate.sample(time.Now(), j.Done, j.Status == running)
	return " " + state(j, &b.rate)
}

// state is how a job fares: how fast if it is running, else its status.
func state(j *Job, r *rate) string {
	note := j.Note()
	switch {
	case j.Over() && j.Result != "":
		return string(j.Result)
	case j.Status != running && note != "":
		return j.Status + ", " + note
	case j.Status != running:
		return j.Status
	case !j.Block:
		return ""
	}
	speed := size(int64(r.perSecond())) + "/s"
	left, known := r.left(j.Total - j.Done)
	if !known {
		return speed
	}
	return speed + " " + left.String() + " left"
}
