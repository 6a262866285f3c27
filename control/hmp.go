package control

import (
	"context"
	"strings"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/devices"
	"github.com/qmpblock/qmpblock/qemuio"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/schema"
)

// hmpCommand is a command of the monitor for people; args is the rest of the
// line. Its text is the reply, lines ended by CR LF.
type hmpCommand func(i *Instance, l *aio.Lock, args string) string

// hmpCommands are those that concern disks and whether the machine runs.
func hmpCommands() map[string]hmpCommand {
	return map[string]hmpCommand{
		"qemu-io":     (*Instance).hmpQemuIO,
		"qmpblock-io": (*Instance).hmpQmpblockIO,
		"info":        (*Instance).hmpInfo,
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

func (i *Instance) humanMonitorCommand(ctx context.Context, a *schema.HumanMonitorCommandArguments) (string, error) {
	if a.CpuIndex != nil && *a.CpuIndex != 0 {
		// The machine has one.
		return "", qerr.New("Parameter 'cpu-index' expects a CPU number")
	}
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
	defer i.finishDeleted(ctx, l)
	return run(i, l, strings.TrimLeft(args, " \t")), nil
}

// hmpError is how this monitor shows an error.
func hmpError(err error) string {
	if err == nil {
		return ""
	}
	return "Error: " + err.Error() + "\r\n"
}

// hmpQemuIO is the reference's command: what it prints appears on the server's
// standard output, the reply holds errors only.
func (i *Instance) hmpQemuIO(l *aio.Lock, args string) string {
	return qemuio.HMP(l, i.graph, i.machine.BackendByQOM, args, i.cfg.Stdout)
}

// hmpQmpblockIO is the same with all of it in the reply, for "qmpblock io". It
// has no counterpart in the reference.
func (i *Instance) hmpQmpblockIO(l *aio.Lock, args string) string {
	var out strings.Builder
	reply := qemuio.HMP(l, i.graph, i.machine.BackendByQOM, args, &out)
	return strings.ReplaceAll(out.String(), "\n", "\r\n") + reply
}

func (i *Instance) hmpInfo(l *aio.Lock, args string) string {
	topic, rest, _ := strings.Cut(args, " ")
	switch topic {
	case "block":
		blocks := func() (qjson.Value, error) { return jsonList(i.queryBlock(l)) }
		nodes := func() (qjson.Value, error) {
			return jsonList(i.queryNamedBlockNodes(l, &schema.QueryNamedBlockNodesArguments{}))
		}
		reply, err := devices.InfoBlock(rest, blocks, nodes, i.cfg.Stdout)
		if err != nil {
			return hmpError(err)
		}
		return reply
	case "status":
		return i.machine.InfoStatus(rest, i.cfg.Stdout)
	}
	return "unknown command: 'info " + topic + "'\r\n"
}

// jsonList is what a client would get as the reply of a query.
func jsonList[T interface{ AppendJSON([]byte) []byte }](rows []T, err error) (qjson.Value, error) {
	if err != nil {
		return qjson.Value{}, err
	}
	text := []byte{'['}
	for k, row := range rows {
		if k > 0 {
			text = append(text, ", "...)
		}
		text = row.AppendJSON(text)
	}
	return qjson.Parse(append(text, ']'))
}
