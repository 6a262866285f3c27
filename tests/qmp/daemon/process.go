package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// poll is how often conditions of another process are looked at which no
// descriptor announces.
const poll = 2 * time.Millisecond

// Process is a running program. It leads a process group of its own, which
// ends with it.
type Process struct {
	cmd    *exec.Cmd
	done   chan struct{}
	status int    // valid once done is closed
	final  []byte // what was printed, valid once done is closed

	// output is an unlinked file rather than a pipe: what the process has
	// printed is there at once, and a grandchild cannot hold it open.
	output *os.File
}

// Start runs a command in a folder. Its standard input is empty, what it
// prints is kept.
func Start(command []string, dir string, env []string) (*Process, error) {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Env = dir, env
	return start(cmd)
}

func start(cmd *exec.Cmd) (*Process, error) {
	output, err := os.CreateTemp("", "qmp-output")
	if err != nil {
		return nil, err
	}
	_ = os.Remove(output.Name())
	p := &Process{cmd: cmd, done: make(chan struct{}), output: output}
	p.cmd.Stdout, p.cmd.Stderr = output, output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, output.Close())
	}
	go p.reap()
	return p, nil
}

// reap ends with the process, for which every owner waits in Wait or Kill.
func (p *Process) reap() {
	defer close(p.done)
	_ = p.cmd.Wait() // the status says more
	state := p.cmd.ProcessState
	p.status = state.ExitCode()
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		p.status = 128 + int(ws.Signal())
	}
	p.final = p.printed()
	_ = p.output.Close()
}

func (p *Process) printed() []byte {
	info, err := p.output.Stat()
	if err != nil {
		return nil
	}
	text := make([]byte, info.Size())
	n, _ := p.output.ReadAt(text, 0) // what is there is the answer
	return text[:n]
}

// Output is what was printed so far, on both outputs.
func (p *Process) Output() string {
	text := p.printed()
	select {
	case <-p.done:
		text = p.final
	default:
	}
	return string(text)
}

// Pid is the process number.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends a signal to the process alone.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// Wait returns the exit status, as a shell gives it, once the process has
// ended.
func (p *Process) Wait(limit time.Duration) (int, error) {
	select {
	case <-p.done:
		return p.status, nil
	case <-time.After(limit):
		return 0, fmt.Errorf("awaited the end of process %d for %v", p.Pid(), limit)
	}
}

// Stop asks the process to end, then makes it. It reports a process that had
// to be made to.
func (p *Process) Stop() error {
	_ = p.Signal(syscall.SIGTERM) // it may have ended by itself
	_, err := p.Wait(5 * time.Second)
	p.Kill()
	return err
}

// Kill ends the whole process group and waits for it.
func (p *Process) Kill() {
	_ = syscall.Kill(-p.Pid(), syscall.SIGKILL)
	<-p.done
}

// AwaitSocket waits until the process listens on a UNIX socket and has come to
// rest: the reference greets a client twice that comes while it still starts.
// An error tells that it ended instead.
func (p *Process) AwaitSocket(path string, limit time.Duration) error {
	err := p.await(limit, func() bool { return exists(path) && p.Rests() })
	if err != nil {
		return fmt.Errorf("awaited socket %s: %w", path, err)
	}
	return nil
}

// AwaitRest waits until the process has come to rest, and has nothing to do any more
// with what was sent to it.
func (p *Process) AwaitRest(limit time.Duration) error {
	if err := p.await(limit, p.Rests); err != nil {
		return fmt.Errorf("awaited that process %d rests: %w", p.Pid(), err)
	}
	return nil
}

// AwaitEndOrRest waits until the process has ended, which it reports, or has
// been asleep for a while.
func (p *Process) AwaitEndOrRest(limit time.Duration) (ended bool, err error) {
	const asleep = 400 * time.Millisecond
	since := time.Now()
	err = p.await(limit, func() bool {
		if !p.Rests() {
			since = time.Now()
		}
		return time.Since(since) >= asleep
	})
	if errors.Is(err, ErrEnded) {
		return true, nil
	}
	return false, err
}

// ErrEnded is what AwaitSocket wraps when the process is gone.
var ErrEnded = errors.New("the process has ended")

func (p *Process) await(limit time.Duration, condition func() bool) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	end := time.After(limit)
	for !condition() {
		select {
		case <-p.done:
			return ErrEnded
		case <-end:
			return fmt.Errorf("nothing for %v", limit)
		case <-tick.C:
		}
	}
	return nil
}

// Rests tells whether there was a moment at which every thread of the process slept.
//
// Threads can only be looked at one after the other, and one that was seen asleep may
// have been woken by one that is asleep when its turn comes. So they are looked at twice:
// a thread that slept both times, and has not run in between, slept all the while.
func (p *Process) Rests() bool {
	before, asleep := p.threads()
	if !asleep {
		return false
	}
	after, asleep := p.threads()
	return asleep && maps.Equal(before, after)
}

// threads returns how often each thread has stopped running, and whether all sleep.
func (p *Process) threads() (switches map[string]string, asleep bool) {
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.Pid()))
	if err != nil || len(paths) == 0 {
		return nil, false
	}
	switches = make(map[string]string, len(paths))
	for _, path := range paths {
		status, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(status, []byte("\nState:\tS")) {
			return nil, false
		}
		_, counts, _ := strings.Cut(string(status), "\nvoluntary_ctxt_switches:")
		switches[path] = counts // of both kinds
	}
	return switches, true
}

func exists(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&os.ModeSocket != 0
}

// FreePort returns a TCP port of the loopback address that nobody listens on
// at the moment.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
