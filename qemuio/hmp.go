package qemuio

import (
	"io"
	"strings"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/devices/hmp"
	"github.com/qmpblock/qmpblock/qerr"
)

// HMP is the human monitor's command
//
//	qemu-io [-d] DEVICE COMMAND
//
// which runs one command on a node, or with -d on a device that backend finds
// by its id or path. args is what stands behind "qemu-io". What the command
// prints goes to out, as with the reference to its standard output; the reply
// holds errors only.
//
// On a node the command uses a backend of its own, which lets everybody else do
// as they like. On a device it takes what it needs in the device's name, and
// the device keeps it.
func HMP(l *aio.Lock, g *block.Graph, backend func(id string) (*block.Backend, error), args string, out io.Writer) (reply string) {
	a, reply := hmp.Parse("qemu-io", []hmp.Param{
		{Kind: hmp.Flag, Name: "d"},
		{Kind: hmp.Device, Name: "device"},
		{Kind: hmp.String, Name: "command"},
	}, args, out)
	if reply != "" {
		return reply
	}
	if a.Has("d") {
		b, err := backend(a["device"])
		if err != nil {
			return "Error: " + report(err)
		}
		return report(runOn(l, b, a["command"], out))
	}
	n, err := g.Lookup("", a["device"])
	if err != nil {
		return "Error: " + report(err)
	}
	b := g.NewBackend("", 0, block.PermAll)
	defer b.Close(l)
	if err := b.Insert(l, n); err != nil {
		return "Error: " + report(err)
	}
	return report(runOn(l, b, a["command"], out))
}

func runOn(l *aio.Lock, b *block.Backend, command string, out io.Writer) error {
	s := New(b, out)
	defer s.Close(l)
	return s.Run(l, command)
}

// report is an error as the human monitor shows it, "" for none.
func report(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error() + "\n" + qerr.From(err).Hint
	return strings.ReplaceAll(text, "\n", "\r\n")
}
