package jobs_test

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/jobs"
	"github.com/qmpblock/qmpblock/qerr"
)

// commits is a chain source, middle, active, of which the middle one is to be
// committed into source; target is none of it.
type commits struct{ *mirrors }

func newCommits(t *testing.T, seed uint64) commits {
	t.Helper()
	m := newMirrors(t, seed, false)
	c := commits{m}
	m.Drop(m.user)
	for _, n := range []struct{ name, backing string }{{"middle", "source"}, {"active", "middle"}} {
		m.user = m.Use(m.Add(fmt.Sprintf(
			`{"node-name":%q,"driver":"overlay","size":%d,"unit":512,"backing":%q}`, n.name, backupSize, n.backing)))
		m.fill(m.user, 60)
		if n.name == "middle" {
			m.Drop(m.user)
		}
	}
	m.model = m.readBy(m.user)
	return c
}

func (c commits) start(errors jobs.ErrorPolicy) {
	c.t.Helper()
	c.do(func(l *aio.Lock) (err error) {
		c.job, err = c.set.CreateCommit(l, jobs.CommitParams{
			Params: jobs.Params{ID: "j", ManualDismiss: true}, Graph: c.Graph,
			Node: c.Graph.Node("active"), Top: c.Graph.Node("middle"), Base: c.source, Errors: errors,
		})
		if err == nil {
			c.job.Start(l)
		}
		return err
	})
}

// Requests that fail, those that read ahead as well, are tried again.
func TestCommitRetries(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]jobs.ErrorPolicy{"ignore": jobs.PolicyIgnore, "stop": jobs.PolicyStop} {
		t.Run(name, func(t *testing.T) {
			eachSeed(t, func(t *testing.T, seed uint64) {
				c := newCommits(t, seed)
				writes, reads := sometimes(seed), sometimes(seed+1)
				failAt(c.source, drivertest.Write, qerr.From(syscall.EIO), writes)
				drivertest.FailReads(c.Graph.Node("middle"), func() error {
					if reads() {
						return qerr.From(syscall.EIO)
					}
					return nil
				})
				c.start(policy)
				for stops := true; stops; {
					c.until(jobs.Paused, jobs.Concluded)
					c.do(func(l *aio.Lock) error {
						if stops = c.job.Status(l) == jobs.Paused; stops {
							return c.job.Resume(l)
						}
						return nil
					})
				}
				c.must(c.end())
				if c.Graph.Node("active").Backing().Node() != c.source {
					t.Error("the middle is still there")
				}
				if !c.saw("ERROR write "+name) || !c.saw("ERROR read "+name) {
					t.Errorf("nothing has failed: %q", c.events)
				}
				c.same(c.user)
			})
		})
	}
}

// A job that fails says what was done before the request that failed, and leaves
// the chain as it was.
func TestCommitFails(t *testing.T) {
	t.Parallel()
	c := newCommits(t, 1)
	failAt(c.source, drivertest.Write, qerr.From(syscall.EIO), once())
	c.start(jobs.PolicyReport)
	c.until(jobs.Concluded)
	if done, _ := c.job.Progress.Get(); done >= 512<<10 {
		t.Errorf("%d bytes are done in front of the first that failed", done)
	}
	if err := c.end(); err == nil || err.Error() != "Input/output error" {
		t.Errorf("it ended with %v", err)
	}
	if c.Graph.Node("active").Backing().Node() != c.Graph.Node("middle") {
		t.Error("the middle is gone")
	}
	c.same(c.user)
}

// once is true the first time.
func once() func() bool {
	var seen atomic.Bool
	return func() bool { return seen.CompareAndSwap(false, true) }
}
