package control

import (
	"context"
	"strings"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/schema"
)

// hmpCommand is a command of the monitor for people; args is the rest of the
// line. Its text is the reply, lines ended by CR LF.
type hmpCommand func(i *Instance, l *aio.Lock, args string) string

// hmpCommands are those that concern disks and whether the machine runs.
func hmpCommands() map[string]hmpCommand {
	return map[string]hmpCommand{
		"stop": func(i *Instance, l *aio.Lock, _ string) string {
			i.machine.Stop(l)
			return ""
		},
		"cont": func(i *Instance, l *aio.Lock, _ string) string { return hmpError(i.machine.Cont(l)) },
		"device_del": func(i *Instance, l *aio.Lock, args string) string {
			return hmpError(i.machine.Remove(l, args))
		},
	}
}

func (i *Instance) humanMonitorCommand(_ context.Context, a *schema.HumanMonitorCommandArguments) (string, error) {
	line := strings.TrimLeft(a.CommandLine, " \t")
	name, args, _ := strings.Cut(line, " ")
	if name == "" {
		return "", nil
	}
	run := i.hmp[name]
	if run == nil {
		return "unknown command: '" + name + "'\r\n", nil
	}
	l := i.graph.Main().Acquire()
	defer l.Release()
	return run(i, l, strings.TrimLeft(args, " \t")), nil
}

// hmpError is how this monitor shows an error.
func hmpError(err error) string {
	if err == nil {
		return ""
	}
	return "Error: " + err.Error() + "\r\n"
}
