package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/qmpblock/qmpblock/control"
)

// systemOption is an option of the system emulator: a single dash or two, and
// its argument, if it has one, in the next word.
type systemOption struct {
	arg bool
	// as is the option of the storage daemon with the same meaning; empty for
	// those that change nothing here, because there is no guest to see it.
	as string
}

var systemOptions = map[string]systemOption{
	"S":          {as: "stopped"},
	"M":          {arg: true},
	"machine":    {arg: true},
	"display":    {arg: true},
	"nodefaults": {},
	"nographic":  {},
	"name":       {arg: true},
	"m":          {arg: true},
	"smp":        {arg: true},
	"cpu":        {arg: true},
	"accel":      {arg: true},
	"blockdev":   {arg: true, as: "blockdev"},
	"object":     {arg: true, as: "object"},
	"chardev":    {arg: true, as: "chardev"},
	"device":     {arg: true, as: "device"},
	"mon":        {arg: true, as: "mon"},
	"qmp":        {arg: true, as: "qmp"},
	"qmp-pretty": {arg: true, as: "qmp-pretty"},
	"trace":      {arg: true, as: "trace"},
	"daemonize":  {as: "daemonize"},
	"pidfile":    {arg: true, as: "pidfile"},
	"jsonrpc":    {arg: true, as: "jsonrpc"},
	"log-level":  {arg: true, as: "log-level"},
	"h":          {as: "help"},
	"help":       {as: "help"},
	"version":    {as: "version"},
}

const systemHelp = `Usage: %s [options]
Answers QMP as QEMU's system emulator does, for what concerns block devices.
There is no guest; options that only a guest would notice are accepted.

  -S                     do not start: 'cont' does
  -blockdev <options>    add a block node
  -device <options>      add a device
  -chardev <options>     add a character device
  -mon [chardev=]<id>,mode=control[,pretty=on|off]
                         serve QMP on a character device
  -qmp <device>          the same in one: unix:<path>,server=on,wait=off …
  -qmp-pretty <device>   with pretty=on
  -object <options>      add an object
  -trace <options>       switch trace points on; 'help' lists them
  -daemonize             go to the background once everything is up
  -pidfile <path>        write the process ID to a file after startup
  -jsonrpc unix:<path>|ws:<host>:<port>
                         serve the same commands over JSON-RPC 2.0
  -log-level <level>     trace, debug, info, warn, error or disabled
`

// systemEmulator is the program qemu-system-x86_64, as far as it concerns
// disks. It returns its exit status.
func systemEmulator(path string, args []string) int {
	p := &program{
		path: path, name: filepath.Base(path), out: os.Stdout, err: os.Stderr,
		who: control.System, help: systemHelp, version: "QEMU emulator",
		dash: "-",
	}
	options, ok := p.systemOptions(args)
	if !ok {
		return 1
	}
	if status, done := p.informational(options); done {
		return status
	}
	return p.serveDaemon(sortSystem(options))
}

// systemOptions reads the command line as the emulator does.
func (p *program) systemOptions(args []string) ([]parsedOption, bool) {
	var options []parsedOption
	for len(args) > 0 {
		word := args[0]
		args = args[1:]
		name := strings.TrimPrefix(strings.TrimPrefix(word, "-"), "-")
		o, known := systemOptions[name]
		if !known || name == word {
			fmt.Fprintf(p.err, "%s: %s: invalid option\n", p.name, word)
			return nil, false
		}
		value := ""
		if o.arg {
			if len(args) == 0 {
				fmt.Fprintf(p.err, "%s: %s: requires an argument\n", p.name, word)
				return nil, false
			}
			value, args = args[0], args[1:]
		}
		if o.as != "" {
			options = append(options, parsedOption{o.as, value})
		}
	}
	return options, true
}

// systemOrder is in which order the emulator creates things, whatever the
// order of the options.
var systemOrder = []string{"stopped", "trace", "log-level", "object", "chardev", "qmp", "qmp-pretty", "mon", "blockdev", "device", "jsonrpc", "pidfile", "daemonize"}

func sortSystem(options []parsedOption) []parsedOption {
	var sorted []parsedOption
	for _, name := range systemOrder {
		for _, o := range options {
			if o.name == name {
				sorted = append(sorted, o)
			}
		}
	}
	return sorted
}
