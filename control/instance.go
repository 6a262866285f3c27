package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/rs/zerolog"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/chardev"
	"github.com/qmpblock/qmpblock/devices"
	"github.com/qmpblock/qmpblock/drivers"
	"github.com/qmpblock/qmpblock/export"
	"github.com/qmpblock/qmpblock/fdset"
	"github.com/qmpblock/qmpblock/jobs"
	"github.com/qmpblock/qmpblock/jsonrpc"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/qmp"
	"github.com/qmpblock/qmpblock/qom"
	"github.com/qmpblock/qmpblock/schema"
	"github.com/qmpblock/qmpblock/trace"
)

// Personality is which of QEMU's programs an instance answers as.
type Personality uint8

const (
	// StorageDaemon is qemu-storage-daemon: nodes, objects, character devices.
	StorageDaemon Personality = iota
	// System is qemu-system-x86_64 as far as it concerns disks: devices come
	// on top, and a machine that runs or is stopped.
	System
)

// Config is what an instance is made with. The zero value is a silent storage
// daemon.
type Config struct {
	Personality Personality
	// Log receives messages for the person who runs the program.
	Log zerolog.Logger
	// Tracer receives trace points; nil for none.
	Tracer *trace.Tracer
	// Stdout is where lines go that the reference prints: of qemu-io in the
	// monitor for people, and of new images. If it is nil the former go to
	// os.Stdout and the latter nowhere.
	Stdout io.Writer
	// Stopped makes the machine wait for cont.
	Stopped bool
	// Background says that the process has no terminal of its own.
	Background bool
	// Notice receives lines for the user who gave the option, or the command,
	// that is being followed: "warning: …", "info: …". Nil: they go to the log.
	Notice func(line string)
	// Complain receives lines about what went wrong in nobody's command: a
	// client of an export that breaks the rules. Nil: they go to the log.
	Complain func(line string)
}

// Instance is one daemon.
type Instance struct {
	cfg     Config
	version *schema.VersionInfo

	graph    *block.Graph
	jobs     *jobs.Set
	exports  *export.Set
	objects  *qom.Tree
	chardevs *chardev.Set
	fdsets   *fdset.Sets
	machine  *devices.Machine // nil in a storage daemon
	hmp      map[string]hmpCommand
	leaving  []func(*aio.Lock) // what is left to do about deleted devices, behind the reply

	table      *schema.Table
	dispatcher *qmp.Dispatcher
	events     *qmp.Emitter

	// turn is the context of the command that runs, nil if none does.
	turn context.Context

	monitors  int // how many there are
	listeners []*jsonrpc.Listener
	named     map[*qmp.Monitor]*fdset.Named

	ctx     context.Context
	cancel  context.CancelFunc
	serving sync.WaitGroup
	started chan struct{}
	done    chan struct{}
	ending  sync.Once
}

// tell returns where lines about new images go.
func (c *Config) tell() func(line string) {
	out := c.Stdout
	if out == nil {
		return nil
	}
	return func(line string) { fmt.Fprintln(out, line) }
}

// New makes an instance without monitors, nodes or objects.
func New(cfg Config) *Instance {
	if cfg.Notice == nil {
		cfg.Notice = func(line string) { cfg.Log.Info().Msg(line) }
	}
	if cfg.Complain == nil {
		cfg.Complain = func(line string) { cfg.Log.Warn().Msg(line) }
	}
	tell := cfg.tell()
	if cfg.Stdout == nil {
		cfg.Stdout = os.Stdout
	}
	i := &Instance{
		cfg:     cfg,
		version: versionInfo(),
		table:   schema.NewTable(),
		fdsets:  &fdset.Sets{},
		named:   make(map[*qmp.Monitor]*fdset.Named),
		started: make(chan struct{}),
		done:    make(chan struct{}),
	}
	i.events = qmp.NewEmitter(i.table, nil, cfg.Tracer)
	i.ctx, i.cancel = context.WithCancel(context.Background())
	i.dispatcher = &qmp.Dispatcher{Commands: i.table, Tracer: cfg.Tracer, Around: i.whenStarted}
	i.graph = block.New(block.Config{
		Drivers:             drivers.All(),
		Tracer:              cfg.Tracer,
		OpenFile:            i.openFile,
		WriteThreshold:      i.writeThreshold,
		ImageCorrupted:      i.imageCorrupted,
		QuorumFailed:        i.quorumFailed,
		QuorumBad:           i.quorumBad,
		Complain:            cfg.Complain,
		Warn:                cfg.Notice,
		Tell:                tell,
		Panicked:            i.panicked,
		TLSClient:           i.tlsClient,
		SocketFD:            i.socketFD,
		RefuseOldEncryption: cfg.Personality == System,
		Secret:              func(id string) ([]byte, error) { return i.objects.Secret(id) },
	})
	i.graph.Main().RunBetween(i.dispatcher.Turns())
	i.jobs = i.newJobs()
	i.exports = i.newExports()
	i.objects = qom.NewTree(qom.Hooks{NewIOThread: i.newIOThread, NewMainLoop: i.newMainLoop}, qom.StorageDaemonTypes()...)
	i.chardevs = chardev.NewSet(i.objects, chardev.Config{NamedFD: i.fdSource(), Info: func(line string) { cfg.Notice("info: " + line) }})
	i.register()
	return i
}

func (i *Instance) register() {
	t := i.table
	t.QmpCapabilities(func(ctx context.Context, a *schema.QmpCapabilitiesArguments) error {
		return qmp.SessionFrom(ctx).Negotiate(a.Enable)
	})
	i.registerControl(t)
	i.registerBlockCore(t)
	i.registerBlockQuery(t)
	i.registerBlockSnapshot(t)
	i.registerDirtyBitmaps(t)
	i.registerTransaction(t)
	i.registerJobs(t)
	i.registerBlockJobs(t)
	i.registerBlockJobStream(t)
	i.registerBackup(t)
	i.registerBlockJobMirror(t)
	i.registerBlockCreate(t)
	i.registerBlockExport(t)
	i.registerQOM(t)
	i.registerChar(t)
	if i.cfg.Personality == System {
		i.machine = i.newMachine()
		i.hmp = hmpCommands()
		i.hangMachine()
		i.registerMachine(t)
		i.registerMisc(t)
	}
}

// Execute runs a command from within the process, as a client would: for
// tests, and for programs that embed an instance. args is absent or an object;
// the result is the JSON of the reply's "return".
func (i *Instance) Execute(ctx context.Context, command string, args qjson.Value) ([]byte, error) {
	return i.dispatcher.Execute(ctx, command, args, nil)
}

// Table lists the commands and events that exist.
func (i *Instance) Table() *schema.Table { return i.table }

// Done is closed when a client has said quit.
func (i *Instance) Done() <-chan struct{} { return i.done }

// Start lets commands run. Clients of monitors are greeted before, so that one
// monitor works while another's character device waits for its client.
func (i *Instance) Start() {
	if i.machine != nil && !i.cfg.Stopped {
		l := i.graph.Main().Acquire()
		if err := i.machine.Cont(l); err != nil {
			i.cfg.Log.Error().Err(err).Msg("the machine does not start")
		}
		l.Release()
	}
	close(i.started)
	for _, l := range i.listeners {
		i.serving.Go(l.Serve)
	}
}

// whenStarted runs a command, after the start-up.
func (i *Instance) whenStarted(ctx context.Context, c *schema.Command, args qjson.Value, out []byte) ([]byte, error) {
	select {
	case <-i.started:
		i.turn = ctx
		defer func() { i.turn = nil }()
		i.graph.Main().RunPosted()
		return c.Run(ctx, args, out)
	case <-i.ctx.Done():
		return out, qmp.ErrShutdown
	}
}

// Shutdown begins the end on somebody else's behalf than a client's: no command
// runs any more, and exports are taken away while clients can still hear of it.
func (i *Instance) Shutdown(cause schema.ShutdownCause) {
	i.ending.Do(func() {
		i.dispatcher.Shutdown()
		i.announceShutdown(cause)
		i.closeExports()
		i.closeJobs()
	})
}

// announceShutdown tells clients of the system emulator why it ends.
func (i *Instance) announceShutdown(cause schema.ShutdownCause) {
	if i.cfg.Personality == System {
		i.emit(&schema.ShutdownEvent{Reason: cause})
	}
}

// quit is the command: its reply is the last thing that its session sends,
// after everything that the end brings about.
func (i *Instance) quit(ctx context.Context) error {
	i.Shutdown(schema.ShutdownCauseHostQmpQuit)
	qmp.SessionFrom(ctx).End(func() { close(i.done) })
	return nil
}

// Close ends the instance: clients are cut off, everything is closed, every
// goroutine has ended when it returns.
func (i *Instance) Close() {
	i.dispatcher.Shutdown()
	i.cancel()
	for _, l := range i.listeners {
		if err := l.Close(); err != nil {
			i.cfg.Log.Error().Err(err).Msg("closing a JSON-RPC listener")
		}
	}
	i.serving.Wait()
	i.events.Close()
	i.closeExports()
	i.closeJobs()
	if i.machine != nil {
		l := i.graph.Main().Acquire()
		i.machine.Close(l)
		l.Release()
	}
	i.graph.Close()
	i.objects.Close()
	i.chardevs.Close()
	for _, n := range i.named {
		n.Close()
	}
	i.fdsets.Close()
}

func (i *Instance) emit(e schema.Event) { i.events.Emit(e) }

// newFileMode are the permissions of files that are made, before the umask.
const newFileMode = 0o644

// openFile opens a host file, or a duplicate of a descriptor that a client
// passed.
func (i *Instance) openFile(path string, flags int) (*os.File, error) {
	f, handled, err := i.fdsets.Open(path, flags)
	switch {
	case !handled:
		return os.OpenFile(path, flags, newFileMode)
	case i.cfg.Personality == StorageDaemon && errors.Is(err, syscall.ENOENT):
		// The daemon has no command that would fill a set.
		return nil, syscall.ENOSYS
	}
	return f, err
}

func (i *Instance) writeThreshold(node string, threshold, exceeded uint64) {
	i.emit(&schema.BlockWriteThresholdEvent{NodeName: node, AmountExceeded: exceeded, WriteThreshold: threshold})
}

func (i *Instance) imageCorrupted(node string, c block.Corruption) {
	e := &schema.BlockImageCorruptedEvent{NodeName: &node, Msg: c.Message, Fatal: c.Fatal}
	if c.Offset >= 0 {
		e.Offset = &c.Offset
	}
	if c.Size >= 0 {
		e.Size = &c.Size
	}
	i.emit(e)
}

func (i *Instance) quorumFailed(f block.QuorumFailure) {
	i.emit(&schema.QuorumFailureEvent{Reference: f.Reference, SectorNum: f.Sector, SectorsCount: f.Sectors})
}

func (i *Instance) quorumBad(b block.QuorumBad) {
	e := &schema.QuorumReportBadEvent{
		Type: schema.QuorumOpType(b.Op), NodeName: b.Node, SectorNum: b.Sector, SectorsCount: b.Sectors,
	}
	if b.Errno != 0 {
		e.Error = new(qerr.Strerror(b.Errno))
	}
	i.emit(e)
}

// panicked reports a bug: the request is lost, the process goes on.
func (i *Instance) panicked(p *aio.PanicError) {
	i.cfg.Log.Error().Str("operation", p.Op).Interface("panic", p.Value).Bytes("stack", p.Stack).Msg("a coroutine panicked")
}
