package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/qmpblock/qmpblock/chardev"
	"github.com/qmpblock/qmpblock/control"
	"github.com/qmpblock/qmpblock/keyval"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/qom"
	"github.com/qmpblock/qmpblock/schema"
	"github.com/qmpblock/qmpblock/trace"
)

// daemonOptions are those of the reference, and a few of our own at the end.
var daemonOptions = []longOption{
	{name: "blockdev", arg: true},
	{name: "chardev", arg: true},
	{name: "daemonize"},
	{name: "export", arg: true},
	{name: "help", short: 'h'},
	{name: "monitor", arg: true},
	{name: "nbd-server", arg: true},
	{name: "object", arg: true},
	{name: "pidfile", arg: true},
	{name: "trace", short: 'T', arg: true},
	{name: "version", short: 'V'},
	{name: "jsonrpc", arg: true},
	{name: "log-level", arg: true},
}

const daemonHelp = `Usage: %s [options]
Answers QMP as QEMU's storage daemon does

  -h, --help             display this help and exit
  -T, --trace [enable=]<pattern>[,events=<file>][,file=<file>]
                         switch trace points on; 'help' lists them
  -V, --version          output version information and exit

  --blockdev [driver=]<driver>,node-name=<name>[,<option>=<value>...]
                         add a block node
  --chardev <kind>,id=<id>[,<option>=<value>...]
                         add a character device; 'help' lists the kinds
  --daemonize            go to the background once everything is up
  --export [type=]nbd,id=<id>,node-name=<name>[,name=<name>][,description=<text>]
           [,writable=on|off][,<option>=<value>...]
                         show a node to NBD clients
  --monitor [chardev=]<id>[,mode=control][,pretty=on|off]
                         serve QMP on a character device
  --nbd-server addr.type=inet,addr.host=<host>,addr.port=<port>[,<option>=<value>...]
  --nbd-server addr.type=unix,addr.path=<path>[,<option>=<value>...]
  --nbd-server addr.type=fd,addr.str=<fd>[,<option>=<value>...]
                         start the NBD server; further options are tls-creds=<id>,
                         tls-authz=<id>, max-connections=<n> and
                         handshake-max-seconds=<n>
  --object <type>,id=<id>[,<property>=<value>...]
                         add an object; 'help' lists the types, '<type>,help'
                         the properties of one
  --pidfile <path>       write the process ID to a file after startup

Beyond the original:
  --jsonrpc unix:<path>|ws:<host>:<port>
                         serve the same commands over JSON-RPC 2.0
  --log-level <level>    trace, debug, info, warn, error or disabled
`

// program is one of QEMU's programs, and what the options of a run build up.
type program struct {
	path     string // as called, for errors of the option syntax
	name     string // the last part of it, for all other errors
	dash     string // before an option's name in messages
	help     string // with a verb for the name
	version  string // what --version calls it
	who      control.Personality
	out, err io.Writer

	current  parsedOption // the one that is being followed
	serving  atomic.Bool  // all of them have been
	logs     *logging
	instance *control.Instance

	// beforeStart runs when all options are done, before clients are served.
	beforeStart func() error
}

// storageDaemon is the program qemu-storage-daemon. It returns its exit status.
func storageDaemon(path string, args []string) int {
	p := &program{
		path: path, name: filepath.Base(path), dash: "--", out: os.Stdout, err: os.Stderr,
		who: control.StorageDaemon, help: daemonHelp, version: "qemu-storage-daemon",
	}
	options, err := getopt(path, daemonOptions, args)
	if err != nil {
		fmt.Fprintln(p.err, err)
		return 1
	}
	if status, done := p.informational(options); done {
		return status
	}
	return p.serveDaemon(options)
}

// informational answers what needs no daemon, in the order of the options.
func (p *program) informational(options []parsedOption) (int, bool) {
	for _, o := range options {
		switch o.name {
		case "":
			p.complain("%s: Unexpected argument", o.arg)
			return 1, true
		case "help":
			fmt.Fprintf(p.out, p.help, p.name)
			return 0, true
		case "version":
			fmt.Fprintf(p.out, "%s version 10.0.2 (%s)\n", p.version, control.Package)
			return 0, true
		case "trace":
			if o.arg == "help" || o.arg == "?" {
				for _, name := range trace.Points() {
					fmt.Fprintln(p.out, name)
				}
				return 0, true
			}
		case "object":
			if p.objectHelp(o.arg) {
				return 0, true
			}
		case "chardev":
			if status, done := p.chardevHelp(o.arg); done {
				return status, true
			}
		}
	}
	return 0, false
}

// objectHelp answers --object help and --object TYPE,help.
func (p *program) objectHelp(arg string) bool {
	v, help, err := keyval.ParseOption(arg, "qom-type")
	if err != nil || !help {
		return false
	}
	types := qom.NewTree(qom.Hooks{}, qom.StorageDaemonTypes()...)
	defer types.Close()
	kind := v.Get("qom-type")
	if !kind.Exists() {
		fmt.Fprint(p.out, types.CreatableHelp())
		return true
	}
	text, ok := types.PropertyHelp(kind.Str())
	if !ok {
		text = types.CreatableHelp()
	}
	fmt.Fprint(p.out, text)
	return true
}

// chardevHelp answers --chardev help and --chardev KIND,help.
// The reference takes the latter for a device it could not make.
func (p *program) chardevHelp(arg string) (status int, done bool) {
	l, _ := chardev.ParseLegacy(arg)
	switch l.Help {
	case chardev.HelpBackends:
		objects := qom.NewTree(qom.Hooks{}, qom.StorageDaemonTypes()...)
		defer objects.Close()
		fmt.Fprint(p.out, chardev.NewSet(objects, chardev.Config{}).BackendsHelp())
		return 0, true
	case chardev.HelpOptions:
		fmt.Fprint(p.out, chardev.OptionsHelp())
		return 1, true
	}
	return 0, false
}

// complain prints an error as the reference does: the program's name first.
func (p *program) complain(format string, args ...any) {
	fmt.Fprintf(p.err, p.name+": "+format+"\n", args...)
}

// notice prints a line that is no error: about the current option, or about a
// command, as the reference does without the program's name then.
func (p *program) notice(line string) {
	if p.serving.Load() {
		fmt.Fprintln(p.err, line)
		return
	}
	p.complain("%s%s %s: %s", p.dash, p.current.name, p.current.arg, line)
}

// complainAbout prints what went wrong with one option, and the hint that
// only command lines get.
func (p *program) complainAbout(o parsedOption, err error) {
	var file traceFileError
	if errors.As(err, &file) {
		fmt.Fprintf(p.err, "%s:%s\n", p.name, file)
		return
	}
	e := qerr.From(err)
	p.complain("%s%s %s: %s", p.dash, o.name, o.arg, e.Desc)
	fmt.Fprint(p.err, e.Hint)
}

// apply does what one option says.
func (p *program) apply(o parsedOption) error {
	switch o.name {
	case "blockdev":
		return p.withOption(o, "driver", p.instance.AddBlockdev)
	case "nbd-server":
		return p.withOption(o, "", p.instance.StartNBDServer)
	case "export":
		return p.withOption(o, "type", p.instance.AddExport)
	case "object":
		return p.withOption(o, "qom-type", p.instance.AddObject)
	case "monitor":
		return p.withOption(o, "chardev", p.instance.AddMonitor)
	case "chardev":
		return p.instance.AddChardev(o.arg)
	case "mon":
		return p.instance.AddMonitorLegacy(o.arg)
	case "qmp":
		return p.instance.AddQMP(o.arg, false)
	case "qmp-pretty":
		return p.instance.AddQMP(o.arg, true)
	case "device":
		return p.instance.AddDeviceOption(o.arg)
	case "trace":
		return p.logs.enable(o.arg)
	case "jsonrpc":
		return p.instance.ListenJSONRPC(o.arg)
	}
	return nil
}

// withOption parses an option in either notation and hands it on.
func (p *program) withOption(o parsedOption, implied string, add func(qjson.Value, schema.Mode) error) error {
	v, help, err := keyval.ParseOption(o.arg, implied)
	if err != nil {
		return err
	}
	if help {
		return keyval.ErrNoHelp()
	}
	mode := schema.Keyval
	if len(o.arg) > 0 && o.arg[0] == '{' {
		mode = schema.QMP
	}
	return add(v, mode)
}
