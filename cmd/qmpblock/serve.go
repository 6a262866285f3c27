package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/qmpblock/qmpblock/control"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/schema"
)

// defaultSocket is where a server listens and a client looks, in the current
// folder.
const defaultSocket = "qmp.sock"

// diskSize is that of the embedded disk, in bytes. Its file is sparse.
const diskSize = 1 << 30

type serveFlags struct {
	qmp, jsonrpc []string
	logLevel     string
	trace        []string
}

// serveCommand is the program without a subcommand: a server with one disk,
// for a person who wants to try something by hand.
func serveCommand() *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use:   "qmpblock",
		Short: "Answer QMP as QEMU does, for everything that concerns block devices",
		Long: `qmpblock answers QMP (the QEMU Machine Protocol) as QEMU does for everything
that concerns block devices, over real files and without QEMU.

Without a subcommand it serves QMP on a socket in the current folder, with one
disk: node disk0, raw over a sparse temporary file of 1 GiB that is removed at
the end, attached as virtio-blk device vd0.`,
		Args:    cobra.NoArgs,
		Version: "10.0.2 (" + control.Package + ")",
		RunE: func(c *cobra.Command, _ []string) error {
			p := &program{
				path: "qmpblock", name: "qmpblock", dash: "--",
				who: control.System, out: c.OutOrStdout(), err: c.ErrOrStderr(),
			}
			return serve(p, &f)
		},
	}
	c.Flags().StringArrayVar(&f.qmp, "qmp", []string{defaultSocket}, "serve QMP on this UNIX `socket`; may be repeated")
	c.Flags().StringArrayVar(&f.jsonrpc, "jsonrpc", nil, "serve JSON-RPC 2.0 on `unix:PATH or ws:HOST:PORT`; may be repeated")
	c.Flags().StringVar(&f.logLevel, "log-level", "info", "trace, debug, info, warn, error or disabled")
	c.Flags().StringArrayVar(&f.trace, "trace", nil, "switch trace points on by `pattern`, or by file with events=FILE; 'help' lists them")
	return c
}

func serve(p *program, f *serveFlags) error {
	logs, err := newLogging(os.Stderr, f.logLevel, p.notice)
	if err != nil {
		return err
	}
	defer logs.close()
	p.logs = logs
	options := serveOptions(f)
	if status, done := p.informational(options); done {
		return exitStatus(status)
	}
	folder, err := os.MkdirTemp("", "qmpblock")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	disk := filepath.Join(folder, "disk0.raw")
	if err := makeSparse(disk, diskSize); err != nil {
		return err
	}
	p.beforeStart = func() error {
		if err := addDisk(p.instance, disk); err != nil {
			return err
		}
		p.announce(f)
		return nil
	}
	if status := p.runInstance(options, ""); status != 0 {
		return exitStatus(status)
	}
	return nil
}

// serveOptions translates the flags to the options that QEMU's programs take.
func serveOptions(f *serveFlags) []parsedOption {
	var options []parsedOption
	for _, t := range f.trace {
		options = append(options, parsedOption{"trace", t})
	}
	for k, path := range f.qmp {
		id := fmt.Sprintf("qmp%d", k)
		path := strings.ReplaceAll(path, ",", ",,")
		options = append(options,
			parsedOption{"chardev", "socket,id=" + id + ",path=" + path + ",server=on,wait=off"},
			parsedOption{"monitor", id})
	}
	for _, spec := range f.jsonrpc {
		options = append(options, parsedOption{"jsonrpc", spec})
	}
	return options
}

func makeSparse(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Truncate(size)
}

// addDisk makes the embedded disk, by the same ways a client would.
func addDisk(i *control.Instance, path string) error {
	node, err := qjson.Parse(fmt.Appendf(nil,
		`{"driver": "raw", "node-name": "disk0", "file": {"driver": "file", "filename": %s}}`,
		qjson.AppendString(nil, path)))
	if err != nil {
		return err
	}
	if err := i.AddBlockdev(node, schema.QMP); err != nil {
		return err
	}
	device, err := qjson.Parse([]byte(`{"driver": "virtio-blk-pci", "id": "vd0", "drive": "disk0"}`))
	if err != nil {
		return err
	}
	return i.AddDevice(device)
}

// announce tells where the server listens and what to paste.
func (p *program) announce(f *serveFlags) {
	for _, path := range f.qmp {
		fmt.Fprintf(p.out, "QMP on %s. Talk to it:\n\n    socat -,icanon=0 UNIX-CONNECT:%s\n\n", path, path)
	}
	for _, url := range p.instance.JSONRPC() {
		fmt.Fprintf(p.out, "JSON-RPC 2.0 on %s\n", url)
	}
	fmt.Fprintln(p.out, `Begin with {"execute": "qmp_capabilities"}; node disk0 is the disk of device vd0. Ctrl-C ends.`)
}
