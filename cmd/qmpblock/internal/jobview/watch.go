package jobview

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

const (
	queryJobs      = "query-jobs"
	queryBlockJobs = "query-block-jobs"
)

// View shows jobs.
type View interface {
	// Show is called whenever a job changed.
	Show(Job)
	// Close leaves what is shown as it is then.
	Close() error
}

// List asks the server behind a socket for its jobs, the oldest first.
func List(ctx context.Context, socket string) ([]Job, error) {
	c, err := dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	defer c.close()
	if err := c.ask(); err != nil {
		return nil, err
	}
	var t Tracker
	for {
		m, err := c.receive()
		if err != nil {
			return nil, err
		}
		if m.Event != "" {
			continue // the answers know better
		}
		if _, err := t.take(m); err != nil {
			return nil, err
		}
		if m.ID == queryJobs {
			return t.list(), nil
		}
	}
}

// Watch tells a view of the jobs behind a socket, until the server ends the
// connection or the context ends. It asks for their progress every so often. A
// server that goes away with jobs unfinished is an error.
func Watch(ctx context.Context, socket string, v View, every time.Duration) error {
	w := &watcher{view: v}
	err := w.run(ctx, socket, every)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// gone tells whether an error means that the other side is no more.
func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// ask asks for all there is to know. The answers come in this order.
func (c *client) ask() error {
	if err := c.send(queryBlockJobs); err != nil {
		return err
	}
	return c.send(queryJobs)
}

// take takes in a message.
func (t *Tracker) take(m message) ([]Job, error) {
	switch {
	case m.Event != "":
		return t.Event(m.Event, m.Data)
	case m.ID == queryJobs:
		return t.Jobs(m.Return)
	case m.ID == queryBlockJobs:
		return nil, t.BlockJobs(m.Return)
	}
	return nil, nil
}

func (t *Tracker) list() []Job {
	jobs := make([]Job, len(t.jobs))
	for i, j := range t.jobs {
		jobs[i] = j.Job
	}
	return jobs
}

// watcher is a view, and the connection that feeds it.
type watcher struct {
	client  *client
	tracker Tracker
	view    View

	asking bool // answers are on their way
	stale  bool // something happened since they were asked for
}

// received is what a read from the connection led to.
type received struct {
	message
	err error
}

func (w *watcher) run(ctx context.Context, socket string, every time.Duration) error {
	c, err := dial(ctx, socket)
	if err != nil {
		return err
	}
	w.client = c
	err = w.follow(every)
	switch {
	case !gone(err):
		return err
	case w.tracker.Unfinished() > 0:
		return fmt.Errorf("the server went away with %d jobs unfinished", w.tracker.Unfinished())
	}
	return nil
}

// follow shows what comes until there is an error.
func (w *watcher) follow(every time.Duration) error {
	in := make(chan received)
	go w.read(in)
	defer func() {
		w.client.close()
		for range in { // until the reader has ended
		}
	}()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	err := w.ask()
	for err == nil {
		select {
		case r := <-in:
			err = w.show(r)
		case <-ticker.C:
			if w.tracker.Unfinished() > 0 {
				err = w.ask()
			}
		}
	}
	return err
}

// read passes on what comes; an error is the last.
func (w *watcher) read(in chan<- received) {
	defer close(in)
	for {
		m, err := w.client.receive()
		in <- received{m, err}
		if err != nil {
			return
		}
	}
}

// ask asks the server, or makes a note to do so when it has answered.
func (w *watcher) ask() error {
	if w.asking {
		w.stale = true
		return nil
	}
	w.asking, w.stale = true, false
	return w.client.ask()
}

func (w *watcher) show(r received) error {
	if r.err != nil {
		return r.err
	}
	changed, err := w.tracker.take(r.message)
	if err != nil {
		return err
	}
	for _, j := range changed {
		w.view.Show(j)
	}
	switch {
	case r.ID == queryJobs:
		w.asking = false
		if w.stale {
			return w.ask()
		}
	case r.Event != "" && w.tracker.Unfinished() > 0:
		return w.ask()
	}
	return nil
}
