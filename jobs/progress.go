package jobs

import "sync"

// Progress is how far a job has come, in units of its own. Anybody may use it.
type Progress struct {
	mu            sync.Mutex
	done, pending int64
}

// Add says that n units more are done.
func (p *Progress) Add(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
	p.pending -= n
}

// Expect says that n units more are to be done than were expected so far.
func (p *Progress) Expect(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending += n
}

// SetRemaining says how many units are still to be done.
func (p *Progress) SetRemaining(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending = n
}

// Get returns how much is done, and how much will be in the end.
func (p *Progress) Get() (current, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done, p.done + p.pending
}
