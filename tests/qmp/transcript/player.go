package transcript

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// Limits of waiting. They are long because a machine may be busy; nothing that
// works comes near them.
const (
	replyLimit = 30 * time.Second
	startLimit = 20 * time.Second
	shellLimit = 60 * time.Second
	// restLimit is for those that may be at work for long.
	restLimit = time.Second
)

// Player performs a transcript's steps in a folder of its own.
type Player struct {
	Program *daemon.Program
	// Dir is the daemon's and every command's current folder. Its path must
	// be short: sockets live there.
	Dir string

	env      []string
	argv0    string
	port     int
	args     []string // more words for the command line
	monitor  string   // sub-options of the monitor
	system   bool
	daemon   *daemon.Process
	jobs     map[string]*daemon.Process
	conns    map[string]*conn
	listener map[string]net.Listener
	current  string
	files    []*os.File // go with the next request
	loose    bool       // events may come before what is written above them
	looseAll bool
	early    []string // events that did
	history  []string // what was said last, for messages
}

// ErrSkip is returned when the machine lacks what a `need` line asks for.
var ErrSkip = errors.New("the machine lacks what this transcript needs")

// Replay performs the steps and returns an error at the first difference
// between what is written and what comes.
func (p *Player) Replay(f *File) error {
	return p.play(f, p.compare)
}

// Record performs the steps and replaces what is expected by what comes. Lines
// that differ only in what [Normalize] evens out stay as they are.
func (p *Player) Record(f *File) error {
	return p.play(f, p.record)
}

// observer deals with what a step brought: got holds output and status of a
// command, messages are still to be read.
type observer func(s *Step, got []Expect) error

func (p *Player) play(f *File, observe observer) (err error) {
	p.jobs, p.conns, p.listener = map[string]*daemon.Process{}, map[string]*conn{}, map[string]net.Listener{}
	p.current = main
	defer func() {
		if end := p.shutdown(); err == nil && end != nil {
			err = fmt.Errorf("%s: at the end: %w", f.Name, end)
		}
	}()
	if err := p.prepare(f); err != nil {
		return err
	}
	for _, s := range f.Steps {
		got, err := p.perform(s)
		if err == nil {
			err = observe(s, got)
		}
		if err != nil {
			return p.explain(f, s, err)
		}
	}
	return p.leftover(f)
}

// explain adds where it happened and what was said before.
func (p *Player) explain(f *File, s *Step, err error) error {
	var b strings.Builder
	for _, line := range p.history {
		b.WriteString("\n    " + abbreviate(line))
	}
	if p.daemon != nil && p.daemon.Output() != "" {
		b.WriteString("\nthe daemon printed:\n    " + strings.ReplaceAll(strings.TrimSpace(p.daemon.Output()), "\n", "\n    "))
	}
	return fmt.Errorf("%s:%d: %s\n%w\nbefore that:%s", f.Name, s.Line, abbreviate(s.Text), err, b.String())
}

const abbreviated = 400

func abbreviate(line string) string {
	if len(line) <= abbreviated {
		return line
	}
	return line[:abbreviated] + fmt.Sprintf("… (%d bytes)", len(line))
}

func (p *Player) note(format string, args ...any) {
	const kept = 6
	p.history = append(p.history, fmt.Sprintf(format, args...))
	if len(p.history) > kept {
		p.history = p.history[1:]
	}
}

func (p *Player) prepare(f *File) error {
	p.system = f.UsesSystem()
	if p.system && p.Program.System == nil {
		return fmt.Errorf("%w: a system emulator beside %s", ErrSkip, p.Program.Name)
	}
	port, err := daemon.FreePort()
	if err != nil {
		return err
	}
	p.port = port
	p.env = append(os.Environ(), "LC_ALL=C.UTF-8", "TZ=UTC", "DIR="+p.Dir)
	if reference, err := daemon.FindReference(); err == nil {
		tools := filepath.Dir(reference.Storage[0])
		p.env = append(p.env, "PATH="+tools+string(os.PathListSeparator)+os.Getenv("PATH"))
	}
	return nil
}

// command is the program's words for the personality in use.
func (p *Player) command() []string {
	if p.system {
		return p.Program.System
	}
	return p.Program.Storage
}

// expand puts in what a transcript leaves open.
func (p *Player) expand(text string) string {
	for name, value := range p.variables() {
		text = strings.ReplaceAll(text, "${"+name+"}", value)
	}
	return text
}

func (p *Player) variables() map[string]string {
	return map[string]string{
		"DIR":    p.Dir,
		"PORT":   strconv.Itoa(p.port),
		"DAEMON": strings.Join(p.command(), " "),
	}
}

// contract is expand's inverse, for what comes.
func (p *Player) contract(text string) string {
	text = strings.ReplaceAll(text, p.Dir, "${DIR}")
	text = strings.ReplaceAll(text, fmt.Sprintf("127.0.0.1:%d", p.port), "127.0.0.1:${PORT}")
	text = strings.ReplaceAll(text, fmt.Sprintf(`port\": \"%d\"`, p.port), `port\": \"${PORT}\"`) // in a json: name
	return strings.ReplaceAll(text, fmt.Sprintf(`"port": "%d"`, p.port), `"port": "${PORT}"`)
}

// name replaces the daemon's name for itself in what it prints: the path it
// was started with, or that path's last part in front of a complaint.
func (p *Player) name(text string) string {
	if p.argv0 == "" {
		p.argv0 = daemon.Argv0(p.command())
	}
	text = strings.ReplaceAll(text, p.argv0, "${PROG}")
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if rest, ok := strings.CutPrefix(line, filepath.Base(p.argv0)+": "); ok {
			lines[i] = "${PROG}: " + rest
		}
	}
	return p.contract(strings.Join(lines, "\n"))
}

// perform does what the step says and returns the output and status of
// programs that ran to their end.
func (p *Player) perform(s *Step) ([]Expect, error) {
	rest := p.expand(s.Rest)
	if s.Verb != "#" && s.Verb != "start" {
		p.note("%s", s.Text)
	}
	switch s.Verb {
	case "#", "wait", "replies":
		return nil, nil
	case "args":
		words, err := splitWords(rest)
		p.args = append(p.args, words...)
		return nil, err
	case "system":
		words, err := splitWords(rest)
		p.args = append(words, p.args...)
		return nil, err
	case "monitor":
		p.monitor = "," + rest
		return nil, nil
	case "nodaemon":
		return nil, nil
	case "start":
		return p.start()
	case "->":
		return nil, p.send([]byte(rest + "\n"))
	case "->>":
		return nil, p.send([]byte(rest + "\n"))
	case "->raw":
		text, err := rawBytes(rest)
		if err != nil {
			return nil, err
		}
		return nil, p.send(text)
	case "fd":
		return nil, p.attach(rest)
	case "race":
		p.loose = true
		return nil, nil
	case "loose-events":
		p.looseAll = true
		return nil, nil
	case "idle":
		return nil, nil
	case "conn":
		return nil, p.connect(rest)
	case "listen":
		return nil, p.listen(rest)
	case "accept":
		return nil, p.accept(rest)
	case "close":
		return nil, p.closeConn(rest)
	case "shutwr":
		return nil, p.withConn(rest, (*conn).shutWrite)
	case "need":
		return nil, p.need(rest)
	case "!":
		return p.shell([]string{"sh", "-c", rest}, p.contract)
	case "io":
		return p.io(rest)
	case "cli":
		return p.cli(rest)
	case "locks":
		return p.locks(rest)
	case "bg":
		return nil, p.background(rest)
	case "bgkill":
		return nil, p.bgkill(rest)
	case "bgwait":
		return p.bgwait(rest)
	case "waitfile":
		return nil, p.awaitFile(rest)
	case "signal":
		return nil, p.signal(rest)
	case "exit":
		return p.exit()
	}
	return nil, fmt.Errorf("unknown directive %q", s.Verb)
}

// start starts the daemon. If it ends at once, its output and status are the
// step's result; else the first connection is made.
func (p *Player) start() ([]Expect, error) {
	socket := filepath.Join(p.Dir, "qmp.sock")
	command := append([]string{}, p.command()...)
	chardev := "socket,path=" + socket + ",server=on,wait=off,id=c0"
	if p.system {
		command = append(command, "-nodefaults", "-display", "none", "-S",
			"-chardev", chardev, "-mon", "chardev=c0,mode=control"+p.monitor)
	} else {
		command = append(command, "--chardev", chardev, "--monitor", "chardev=c0"+p.monitor)
	}
	command = append(command, p.args...)
	process, err := daemon.Start(command, p.Dir, p.env)
	if err != nil {
		return nil, err
	}
	p.daemon = process
	err = process.AwaitSocket(socket, startLimit)
	if errors.Is(err, daemon.ErrEnded) {
		return p.exit()
	}
	if err != nil {
		return nil, err
	}
	return nil, p.connect(main)
}

// exit awaits the daemon's end.
func (p *Player) exit() ([]Expect, error) {
	if p.daemon == nil {
		return nil, errors.New("there is no daemon")
	}
	status, err := p.daemon.Wait(replyLimit)
	if err != nil {
		return nil, err
	}
	got := outputLines(p.name(p.daemon.Output()))
	return append(got, Expect{Status, main, strconv.Itoa(status)}), nil
}

func (p *Player) send(text []byte) error {
	k, ok := p.conns[p.current]
	if !ok {
		// A daemon that failed to start has no connection; what should
		// have come tells.
		return nil
	}
	k.send(text, p.files)
	for _, f := range p.files {
		_ = f.Close()
	}
	p.files = nil
	return nil
}

// attach opens a file whose descriptor goes with the next request: PATH and,
// if need be, one of r, w, rw (the default) and a (append).
func (p *Player) attach(rest string) error {
	path, mode, _ := strings.Cut(rest, " ")
	flags, ok := map[string]int{"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR, "": os.O_RDWR, "a": os.O_WRONLY | os.O_APPEND}[mode]
	if !ok {
		return fmt.Errorf("fd: mode %q", mode)
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(p.Dir, path)
	}
	f, err := os.OpenFile(path, flags|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	p.files = append(p.files, f)
	return nil
}

// connect makes a connection current, opening it first if there is none of
// that name: NAME, NAME path=SOCKET or NAME port=NUMBER.
func (p *Player) connect(rest string) error {
	name, where, _ := strings.Cut(rest, " ")
	p.current = name
	if p.conns[name] != nil {
		return nil
	}
	network, address := p.address(where)
	c, err := net.DialTimeout(network, address, replyLimit)
	if err != nil {
		return err
	}
	p.conns[name] = newConn(name, c)
	return nil
}

func (p *Player) address(where string) (network, address string) {
	if port, ok := strings.CutPrefix(where, "port="); ok {
		return "tcp", "127.0.0.1:" + port
	}
	path := strings.TrimPrefix(where, "path=")
	if path == "" {
		path = "qmp.sock"
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(p.Dir, path)
	}
	return "unix", path
}

// listen opens a socket that the daemon connects to; accept takes the
// connection.
func (p *Player) listen(rest string) error {
	name, where, _ := strings.Cut(rest, " ")
	network, address := p.address(where)
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	p.listener[name] = l
	return nil
}

func (p *Player) accept(name string) error {
	l := p.listener[name]
	if l == nil {
		return fmt.Errorf("nothing listens for %s", name)
	}
	if d, ok := l.(interface{ SetDeadline(time.Time) error }); ok {
		_ = d.SetDeadline(time.Now().Add(replyLimit))
	}
	c, err := l.Accept()
	if err != nil {
		return err
	}
	p.current = name
	p.conns[name] = newConn(name, c)
	return nil
}

func (p *Player) withConn(name string, do func(*conn)) error {
	k := p.conns[name]
	if k == nil {
		return fmt.Errorf("no connection %q", name)
	}
	do(k)
	return nil
}

func (p *Player) closeConn(name string) error {
	err := p.withConn(name, (*conn).close)
	delete(p.conns, name)
	return err
}

// need skips the transcript where a command fails.
func (p *Player) need(command string) error {
	got, err := p.shell([]string{"sh", "-c", command}, p.contract)
	if err != nil {
		return err
	}
	if len(got) > 0 && got[len(got)-1].Kind == Status {
		return fmt.Errorf("%w: %s", ErrSkip, command)
	}
	return nil
}

// shell runs a command to its end. Its status is part of the result when it
// is not 0.
func (p *Player) shell(command []string, clean func(string) string) ([]Expect, error) {
	process, err := daemon.Start(command, p.Dir, p.env)
	if err != nil {
		return nil, err
	}
	status, err := process.Wait(shellLimit)
	process.Kill()
	p.rest() // the command may have been a client, and it has gone
	if err != nil {
		return nil, fmt.Errorf("%w; it printed: %s", err, process.Output())
	}
	got := outputLines(clean(process.Output()))
	if status != 0 {
		got = append(got, Expect{Status, main, strconv.Itoa(status)})
	}
	return got, nil
}

// cli runs the daemon's program. One that has come to rest instead of ending
// is stopped, and its status is "running".
func (p *Player) cli(words string) ([]Expect, error) {
	command := "exec " + strings.Join(p.command(), " ") + " " + words
	process, err := daemon.Start([]string{"sh", "-c", command}, p.Dir, p.env)
	if err != nil {
		return nil, err
	}
	defer process.Kill()
	ended, err := process.AwaitEndOrRest(shellLimit)
	if err != nil {
		return nil, fmt.Errorf("%w; it printed: %s", err, process.Output())
	}
	got := outputLines(p.name(process.Output()))
	if !ended {
		return append(got, Expect{Status, main, "running"}), nil
	}
	status, err := process.Wait(replyLimit)
	if status != 0 {
		got = append(got, Expect{Status, main, strconv.Itoa(status)})
	}
	return got, err
}

func outputLines(text string) []Expect {
	if text == "" {
		return nil
	}
	var got []Expect
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		got = append(got, Expect{Output, main, line})
	}
	return got
}

func (p *Player) background(rest string) error {
	name, command, _ := strings.Cut(rest, " ")
	process, err := daemon.Start([]string{"sh", "-c", "exec " + command}, p.Dir, p.env)
	if err != nil {
		return err
	}
	p.jobs[name] = process
	return nil
}

func (p *Player) job(name string) (*daemon.Process, error) {
	if j := p.jobs[name]; j != nil {
		return j, nil
	}
	return nil, fmt.Errorf("nothing runs in the background as %q", name)
}

func (p *Player) bgkill(name string) error {
	j, err := p.job(name)
	if err != nil {
		return err
	}
	return j.Stop()
}

func (p *Player) bgwait(name string) ([]Expect, error) {
	j, err := p.job(name)
	if err != nil {
		return nil, err
	}
	status, err := j.Wait(shellLimit)
	if err != nil {
		return nil, err
	}
	got := outputLines(p.name(j.Output()))
	if status != 0 {
		got = append(got, Expect{Status, main, strconv.Itoa(status)})
	}
	return got, nil
}

// awaitFile waits until a file is there and whoever has made it rests: a socket has its
// name before anybody listens.
func (p *Player) awaitFile(name string) error {
	path := filepath.Join(p.Dir, name)
	for end := time.Now().Add(replyLimit); ; {
		if _, err := os.Stat(path); err == nil {
			p.rest()
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("awaited file %s for %v", path, replyLimit)
		}
		time.Sleep(5 * time.Millisecond) // no event tells of another process's file
	}
}

// rest gives the daemon and what runs in the background the time to do what they have
// to. Those that do not come to rest are at work on something that lasts.
func (p *Player) rest() {
	for _, process := range append(slices.Collect(maps.Values(p.jobs)), p.daemon) {
		if process != nil {
			_ = process.AwaitRest(restLimit)
		}
	}
}

var signals = map[string]syscall.Signal{
	"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP, "KILL": syscall.SIGKILL,
	"USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2, "PIPE": syscall.SIGPIPE, "QUIT": syscall.SIGQUIT,
	"ALRM": syscall.SIGALRM,
}

func (p *Player) signal(name string) error {
	s, ok := signals[name]
	if !ok || p.daemon == nil {
		return fmt.Errorf("signal %q", name)
	}
	return p.daemon.Signal(s)
}

// shutdown ends everything that the play began.
func (p *Player) shutdown() error {
	var problem error
	for _, k := range p.conns {
		k.close()
	}
	for _, l := range p.listener {
		_ = l.Close()
	}
	for _, f := range p.files {
		_ = f.Close()
	}
	if p.daemon != nil {
		problem = p.daemon.Stop()
	}
	for _, j := range p.jobs {
		j.Kill()
	}
	p.killDetached()
	return problem
}

// killDetached ends daemons that left our process group: those that wrote a
// *.pid file in the folder.
func (p *Player) killDetached() {
	paths, _ := filepath.Glob(filepath.Join(p.Dir, "*.pid"))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		pid, err := strconv.Atoi(string(bytes.TrimSpace(text)))
		if err != nil || pid <= 1 {
			continue
		}
		if dir, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && p.isOurs(dir) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// isOurs guards against a process number that has found another owner.
func (p *Player) isOurs(exe string) bool {
	name := filepath.Base(exe)
	return name == filepath.Base(p.Program.Storage[0]) || strings.HasPrefix(name, "qemu-") || name == "qmpblock"
}

// Lacks names a program that the transcript's commands need and that is not
// there, "" if nothing is missing.
func Lacks(f *File) string {
	reference, err := daemon.FindReference()
	for _, tool := range f.Tools() {
		path := tool
		if strings.HasPrefix(tool, "qemu-") {
			// Those of another version print other things.
			if err != nil {
				return tool + " of the reference's version"
			}
			path = filepath.Join(filepath.Dir(reference.Storage[0]), tool)
		}
		if _, err := exec.LookPath(path); err != nil {
			return tool
		}
	}
	return ""
}
