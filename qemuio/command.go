package qemuio

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// command is one row of the table of commands.
type command struct {
	name string
	// short is another name, "" if there is none.
	short string
	// args describes the arguments; hasArgs tells an empty description from
	// none.
	args    string
	hasArgs bool
	// min and max bound the number of arguments, options included.
	min, max int
	perm     block.Perm
	oneline  string
	// help is the long explanation, "" if there is none.
	help string
	// run gets the command's name as argv[0].
	run func(s *Session, l *aio.Lock, argv []string) error
}

const anyNumber = -1

// usage is the line that names a command's arguments.
func (c *command) usage(name string) string {
	text := name + " "
	if c.hasArgs {
		text += c.args + " "
	}
	return text + "-- " + c.oneline + "\n"
}

func findCommand(name string) *command {
	for _, c := range commands() {
		if c.name == name || c.short == name && name != "" {
			return c
		}
	}
	return nil
}

// commands is the table, in the order of help.
func commands() []*command {
	return []*command{
		{name: "abort", oneline: "simulate a program crash using abort(3)", run: refuseAbort},
		{name: "aio_flush", oneline: "completes all outstanding aio requests", run: runAioFlush},
		{
			name: "aio_read", args: "[-Ciqrv] [-P pattern] off len [len..]", hasArgs: true, min: 2, max: anyNumber,
			oneline: "asynchronously reads a number of bytes", help: aioReadHelp, run: runAioRead,
		},
		{
			name: "aio_write", args: "[-Cfiqruz] [-P pattern] off len [len..]", hasArgs: true, min: 2, max: anyNumber,
			perm: block.PermWrite, oneline: "asynchronously writes a number of bytes", help: aioWriteHelp, run: runAioWrite,
		},
		{
			name: "alloc", short: "a", args: "offset [count]", hasArgs: true, min: 1, max: 2,
			oneline: "checks if offset is allocated in the file", run: runAlloc,
		},
		{
			name: "break", args: "event tag", hasArgs: true, min: 2, max: 2,
			oneline: "sets a breakpoint on event and tags the stopped request as tag", run: runBreak,
		},
		{
			name: "discard", short: "d", args: "[-Cq] off len", hasArgs: true, min: 2, max: anyNumber,
			perm: block.PermWrite, oneline: "discards a number of bytes at a specified offset", help: discardHelp, run: runDiscard,
		},
		{name: "flush", short: "f", oneline: "flush all in-core file state to disk", run: runFlush},
		{
			name: "help", short: "?", args: "[command]", hasArgs: true, max: 1,
			oneline: "help for one or all commands", run: runHelp,
		},
		{name: "info", short: "i", oneline: "prints information about the current file", run: runInfo},
		{name: "length", short: "l", oneline: "gets the length of the current file", run: runLength},
		{name: "map", hasArgs: true, oneline: "prints the allocated areas of a file", run: runMap},
		{
			name: "read", short: "r", args: "[-abCqrv] [-P pattern [-s off] [-l len]] off len", hasArgs: true, min: 2, max: anyNumber,
			oneline: "reads a number of bytes at a specified offset", help: readHelp, run: runRead,
		},
		{
			name: "readv", args: "[-Cqrv] [-P pattern] off len [len..]", hasArgs: true, min: 2, max: anyNumber,
			oneline: "reads a number of bytes at a specified offset", help: readvHelp, run: runReadv,
		},
		{
			name: "remove_break", args: "tag", hasArgs: true, min: 1, max: 1,
			oneline: "remove a breakpoint by tag", run: runRemoveBreak,
		},
		{
			name: "reopen", args: "[(-r|-w)] [-c cache] [-o options]", hasArgs: true, max: anyNumber,
			oneline: "reopens an image with new options", help: reopenHelp, run: runReopen,
		},
		{
			name: "resume", args: "tag", hasArgs: true, min: 1, max: 1,
			oneline: "resumes the request tagged as tag", run: runResume,
		},
		{
			name: "sigraise", args: "signal", hasArgs: true, min: 1, max: 1,
			oneline: "raises a signal", help: sigraiseHelp, run: refuseSignal,
		},
		{name: "sleep", min: 1, max: 1, oneline: "waits for the given value in milliseconds", run: runSleep},
		{
			name: "truncate", short: "t", args: "[-m prealloc_mode] off", hasArgs: true, min: 1, max: 3,
			perm: block.PermWrite | block.PermResize, oneline: "truncates the current file at the given offset", run: runTruncate,
		},
		{
			name: "wait_break", args: "tag", hasArgs: true, min: 1, max: 1,
			oneline: "waits for the suspension of a request", run: refuseWait,
		},
		{
			name: "write", short: "w", args: "[-bcCfnqruz] [-P pattern | -s source_file] off len", hasArgs: true, min: 2, max: anyNumber,
			perm: block.PermWrite, oneline: "writes a number of bytes at a specified offset", help: writeHelp, run: runWrite,
		},
		{
			name: "writev", args: "[-Cfqr] [-P pattern] off len [len..]", hasArgs: true, min: 2, max: anyNumber,
			perm: block.PermWrite, oneline: "writes a number of bytes at a specified offset", help: writevHelp, run: runWritev,
		},
		{
			name: "zone_append", short: "zap", args: "offset len [len..]", hasArgs: true, min: 3, max: 4,
			oneline: "append write a number of bytes at a specified offset", run: runZoneAppend,
		},
		{
			name: "zone_close", short: "zc", args: "offset len", hasArgs: true, min: 2, max: 2,
			oneline: "close a range of zones in zone block device", run: runZone("close"),
		},
		{
			name: "zone_finish", short: "zf", args: "offset len", hasArgs: true, min: 2, max: 2,
			oneline: "finish a range of zones in zone block device", run: runZone("finish"),
		},
		{
			name: "zone_open", short: "zo", args: "offset len", hasArgs: true, min: 2, max: 2,
			oneline: "explicit open a range of zones in zone block device", run: runZone("open"),
		},
		{
			name: "zone_report", short: "zrp", args: "offset number", hasArgs: true, min: 2, max: 2,
			oneline: "report zone information", run: runZoneReport,
		},
		{
			name: "zone_reset", short: "zrs", args: "offset len", hasArgs: true, min: 2, max: 2,
			oneline: "reset a zone write pointer in zone block device", run: runZone("reset"),
		},
	}
}
