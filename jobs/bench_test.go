package jobs

import (
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// What a job costs that does nothing, and what a sleep and its end.
func BenchmarkJob(b *testing.B) {
	g := block.New(block.Config{})
	defer g.Close()
	w := &world{}
	s := NewSet(Config{Main: g.Main(), Changed: func(string, Status) {}})
	l := g.Main().Acquire()
	defer l.Release()
	run := func(step func(*aio.Co, *Job) error) *Job {
		j, err := s.Create(l, &work{w: w, steps: steps{step}}, Params{Internal: true})
		if err != nil {
			b.Fatal(err)
		}
		j.Start(l)
		return j
	}
	b.Run("whole", func(b *testing.B) {
		for b.Loop() {
			run(func(*aio.Co, *Job) error { return nil })
			l.Settle()
			w.log = w.log[:0]
		}
	})
	b.Run("wake", func(b *testing.B) {
		j := run(endless)
		for b.Loop() {
			j.Wake(l)
		}
		j.cancel(l, true)
	})
}
