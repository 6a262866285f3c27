package reference

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// story makes a history of jobs: first a graph, then what happens to it.
type story struct {
	r     *rand.Rand
	depth int // images in the chain
	// inner: images in the chain may be exported to writers. There are no streams
	// then: one that such a writer forbids leaves a user of the image behind in
	// the reference.
	inner bool
	steps []step
	// opened are the options of nodes that can be opened again.
	opened []object
}

// history makes a random history of so many steps behind those that make the
// graph.
func history(r *rand.Rand, length int) []step {
	s := &story{r: r, depth: 2 + r.IntN(3), inner: r.IntN(4) == 0}
	s.graph()
	for range length {
		s.happen()
	}
	return s.steps
}

func (s *story) command(name string, arguments object) {
	request := object{{"execute", name}}
	if len(arguments) > 0 {
		request = append(request, member{"arguments", arguments})
	}
	var b strings.Builder
	write(&b, request)
	s.steps = append(s.steps, step{command: b.String()})
}

// in tells whether one of n cases is there.
func (s *story) in(n int) bool { return s.r.IntN(n) == 0 }

func (s *story) top() string { return fmt.Sprintf("n%d", s.depth-1) }

// graph opens a chain n0 … n3, of which the lowest may be raw, over files f0 …
// f3, with filters perhaps; and beside it images to copy to.
func (s *story) graph() {
	base := pick(s.r, "n0.qcow2", "n0.qcow2", "n0.raw", "short.raw")
	for n := range s.depth {
		file := fmt.Sprintf("n%d.qcow2", n)
		switch {
		case n == 0:
			file = base
		case s.in(5):
			file = fmt.Sprintf("v%d.qcow2", n)
		}
		s.file(n, file)
		o := object{{"driver", "qcow2"}, {"node-name", fmt.Sprintf("n%d", n)}, {"file", fmt.Sprintf("f%d", n)}}
		switch {
		case strings.HasSuffix(file, ".raw"):
			o[0].value = "raw"
		case n == 0:
			o = append(o, member{"backing", nil})
		default:
			o = append(o, member{"backing", fmt.Sprintf("n%d", n-1)})
		}
		o.sometimes(s.r, 12, "read-only", true)
		s.open(o)
	}
	s.targets()
	s.disks()
	switch s.r.IntN(6) {
	case 0:
		s.command("blockdev-add", object{{"driver", "copy-on-read"}, {"node-name", "c"}, {"file", s.top()}})
	case 1:
		s.command("blockdev-add", object{{"driver", "copy-before-write"}, {"node-name", "c"}, {"file", s.top()}, {"target", "z"}})
	}
	if !s.in(3) {
		s.command("nbd-server-start", object{{"addr", object{{"type", "unix"}, {"data", object{{"path", "n.sock"}}}}}})
		s.command("block-export-add", object{{"type", "nbd"}, {"id", "e"}, {"node-name", pick(s.r, s.top(), s.top(), "c")}, {"name", "e"}, {"writable", !s.in(4)}})
	}
	for range s.r.IntN(4) {
		s.bitmap("add")
	}
}

// file opens a file node for the image n, in which requests may fail.
func (s *story) file(n int, file string) {
	name := fmt.Sprintf("f%d", n)
	o := object{{"driver", "file"}, {"node-name", name}, {"filename", file}}
	if s.in(8) {
		o[1].value = "g" + name[1:]
		s.command("blockdev-add", o)
		o = s.failing(name, "g"+name[1:])
	}
	s.command("blockdev-add", o)
}

// failing is a node in which requests fail. Flushes and questions for block status
// do not: when a format flushes its file, and how large the areas are that are
// asked about, is its own affair. Nor do they fail at once: whether a job hears of that
// before the reply to its command is a matter of the reference's timers.
func (s *story) failing(name, image string) object {
	rule := object{{"event", pick(s.r, "none", "none", "read_aio", "write_aio")}, {"errno", pick(s.r, 5, 28, 5)}}
	if rule[0].value == "none" {
		rule.sometimes(s.r, 2, "iotype", pick(s.r, "read", "write", "write-zeroes", "discard"))
	}
	rule.sometimes(s.r, 2, "once", true)
	rule.sometimes(s.r, 2, "sector", pick(s.r, 0, 512, 128, 1000, 2047))
	o := object{{"driver", "blkdebug"}, {"node-name", name}, {"image", image}, {"inject-error", list{rule}}}
	if s.in(4) {
		o = append(o, member{"align", pick(s.r, 512, 4096)})
		o.sometimes(s.r, 2, "max-transfer", pick(s.r, 4096, 65536))
		o.sometimes(s.r, 2, "max-write-zero", pick(s.r, 4096, 65536))
	}
	return o
}

// targets opens images to copy to: t is qcow2, u raw, z nothing; o is an overlay
// to be, and big is larger than the others.
func (s *story) targets() {
	qcow2 := func(name, file string) {
		o := object{{"driver", "qcow2"}, {"node-name", name}, {"file", object{{"driver", "file"}, {"filename", file}}}}
		if name == "o" {
			o = append(o, member{"backing", nil})
		}
		s.command("blockdev-add", o)
	}
	qcow2("t", "t.qcow2")
	if s.in(6) {
		s.command("blockdev-add", object{{"driver", "file"}, {"node-name", "tf"}, {"filename", "t.raw"}})
		s.command("blockdev-add", s.failing("u", "tf"))
	} else {
		s.command("blockdev-add", object{{"driver", "raw"}, {"node-name", "u"}, {"file", object{{"driver", "file"}, {"filename", "t.raw"}}}})
	}
	s.command("blockdev-add", object{{"driver", "null-co"}, {"node-name", "z"}, {"size", 1 << 20}})
	if s.in(2) {
		qcow2("o", "o.qcow2")
	}
	if s.in(4) {
		qcow2("big", "big.qcow2")
	}
}

// node names a node of the chain, the topmost most often. File nodes are left
// alone: where in a qcow2 file its content is need not be the same.
func (s *story) node() string {
	return pick(s.r, s.top(), s.top(), s.top(), "n0", "n1", "n2", "n1", "c", "s0", "flt", "w", "w", "q", "nope")
}

func (s *story) target() string {
	return pick(s.r, "t", "t", "u", "u", "z", "z", "big", "n0", "o", "nope")
}

func (s *story) job() string { return pick(s.r, "j0", "j0", "j0", "j1", "j1", "j2", "nope") }

func (s *story) bitmapName() string { return pick(s.r, "b0", "b0", "b1", "b1", "b2", "bi", "nope") }

func (s *story) onError() string {
	return pick(s.r, "report", "ignore", "enospc", "stop", "stop", "auto")
}

// happen adds one step.
func (s *story) happen() {
	switch n := s.r.IntN(100); {
	case n < 24:
		s.start()
	case n < 52:
		s.verb()
	case n < 62:
		s.bitmap(pick(s.r, "add", "add", "remove", "clear", "enable", "disable", "merge", "sha256"))
	case n < 67:
		s.command(s.snapshot())
	case n < 71:
		s.transaction()
	case n < 75:
		s.group()
	case n < 77:
		s.again()
	case n < 85:
		s.transfer()
	case n < 93:
		s.change()
	default:
		s.query()
	}
}

// start begins a job.
func (s *story) start() {
	kinds := []func() (string, object){s.backup, s.backup, s.mirror, s.mirror, s.commit, s.commit, s.commit, s.create}
	if !s.inner {
		kinds = append(kinds, s.stream, s.stream, s.stream)
	}
	s.command(pick(s.r, kinds...)())
}

// common are the arguments that all jobs over nodes have.
func (s *story) common(o object) object {
	if s.in(2) {
		o = append(o, member{"speed", pick(s.r, 1, 1, 1, 1, 1, 1, 0, -1)})
	}
	o.sometimes(s.r, 4, "auto-finalize", s.in(4))
	o.sometimes(s.r, 4, "auto-dismiss", s.in(4))
	return o
}

// backup makes a backup; those into files have another target.
func (s *story) backup() (string, object) {
	o := object{{"job-id", s.job()}, {"device", s.node()}, {"sync", pick(s.r, "full", "full", "full", "top", "top", "none", "incremental", "bitmap")}}
	command := "blockdev-backup"
	if s.in(5) {
		command = "drive-backup"
		o = append(o, member{"target", pick(s.r, "b0.img", "b1.img", "t.raw", "missing/x")})
		o.sometimes(s.r, 2, "format", pick(s.r, "qcow2", "qcow2", "raw", "nope"))
		o.sometimes(s.r, 3, "mode", pick(s.r, "existing", "absolute-paths"))
	} else {
		o = append(o, member{"target", s.target()})
	}
	sync := o[2].value
	if sync == "incremental" || sync == "bitmap" || s.in(8) {
		o = append(o, member{"bitmap", s.bitmapName()})
		if sync == "bitmap" || s.in(3) {
			o = append(o, member{"bitmap-mode", pick(s.r, "on-success", "never", "always")})
		}
	}
	o.sometimes(s.r, 10, "compress", true)
	o.sometimes(s.r, 3, "on-source-error", s.onError())
	o.sometimes(s.r, 3, "on-target-error", s.onError())
	o.sometimes(s.r, 4, "filter-node-name", pick(s.r, "flt", "flt", "n0", "1x"))
	o.sometimes(s.r, 12, "discard-source", true)
	if s.in(4) {
		perf := object{{"max-workers", pick(s.r, 1, 1, 2, 0)}}
		perf.sometimes(s.r, 3, "max-chunk", pick(s.r, 65536, 131072, 4096, -1))
		perf.sometimes(s.r, 4, "min-cluster-size", pick(s.r, 65536, 131072, 4096, 1<<20))
		perf.sometimes(s.r, 4, "use-copy-range", s.in(2))
		o = append(o, member{"x-perf", perf})
	}
	return command, s.common(o)
}

func (s *story) mirror() (string, object) {
	o := object{{"job-id", s.job()}, {"device", s.node()}, {"sync", pick(s.r, "full", "full", "full", "top", "top", "none", "none", "incremental")}}
	command := "blockdev-mirror"
	if s.in(5) {
		command = "drive-mirror"
		o = append(o, member{"target", pick(s.r, "m0.img", "m1.img", "t.raw", "missing/x")})
		o.sometimes(s.r, 2, "format", pick(s.r, "qcow2", "qcow2", "raw", "nope"))
		o.sometimes(s.r, 3, "mode", pick(s.r, "existing", "absolute-paths"))
		o.sometimes(s.r, 2, "node-name", pick(s.r, "m", "m", "n0"))
		o.sometimes(s.r, 4, "unmap", s.in(2))
	} else {
		o = append(o, member{"target", s.target()})
		o.sometimes(s.r, 4, "filter-node-name", pick(s.r, "flt", "flt", "n0", "1x"))
	}
	o.sometimes(s.r, 8, "replaces", s.node())
	o.sometimes(s.r, 6, "granularity", pick(s.r, 65536, 4096, 131072, 1000, 1<<30))
	o.sometimes(s.r, 8, "buf-size", pick(s.r, 0, 65536, 1<<20, -1))
	o.sometimes(s.r, 3, "copy-mode", pick(s.r, "write-blocking", "background"))
	o.sometimes(s.r, 4, "on-source-error", s.onError())
	o.sometimes(s.r, 4, "on-target-error", s.onError())
	return command, s.common(o)
}

func (s *story) fileName() string { return pick(s.r, "n0.qcow2", "n1.qcow2", "n0.raw", "x.qcow2", "") }

func (s *story) commit() (string, object) {
	o := object{{"job-id", s.job()}, {"device", pick(s.r, s.top(), s.top(), s.top(), s.top(), s.node())}}
	o.sometimes(s.r, 2, "top-node", s.node())
	o.sometimes(s.r, 2, "base-node", pick(s.r, "n0", "n0", "n1", "n1", s.node()))
	o.sometimes(s.r, 16, "top", s.fileName())
	o.sometimes(s.r, 16, "base", s.fileName())
	o.sometimes(s.r, 6, "backing-file", s.fileName())
	o.sometimes(s.r, 8, "backing-mask-protocol", s.in(2))
	o.sometimes(s.r, 4, "on-error", s.onError())
	o.sometimes(s.r, 4, "filter-node-name", pick(s.r, "flt", "flt", "n0", "1x"))
	return "block-commit", s.common(o)
}

func (s *story) stream() (string, object) {
	o := object{{"job-id", s.job()}, {"device", pick(s.r, s.top(), s.top(), "n2", s.node())}}
	o.sometimes(s.r, 3, "base-node", pick(s.r, "n0", "n0", "n1", s.node()))
	o.sometimes(s.r, 6, "bottom", pick(s.r, "n1", "n2", s.node()))
	o.sometimes(s.r, 16, "base", s.fileName())
	o.sometimes(s.r, 6, "backing-file", s.fileName())
	o.sometimes(s.r, 8, "backing-mask-protocol", s.in(2))
	o.sometimes(s.r, 4, "on-error", s.onError())
	o.sometimes(s.r, 4, "filter-node-name", pick(s.r, "flt", "flt", "n0", "1x"))
	return "block-stream", s.common(o)
}

func (s *story) create() (string, object) {
	options := object{{"driver", "file"}, {"filename", pick(s.r, "x.qcow2", "x.qcow2", "missing/x")}, {"size", pick(s.r, 1<<20, 65536)}}
	if s.in(2) {
		options = object{{"driver", "qcow2"}, {"file", pick(s.r, "t", "z", s.node(), "f0")}, {"size", pick(s.r, 1<<20, 1<<21)}}
		options.sometimes(s.r, 4, "cluster-size", pick(s.r, 65536, 4096, 1000))
		options.sometimes(s.r, 4, "backing-file", s.fileName())
		options.sometimes(s.r, 4, "backing-fmt", pick(s.r, "qcow2", "raw"))
	}
	return "blockdev-create", object{{"job-id", s.job()}, {"options", options}}
}

// verb does something with a job.
func (s *story) verb() {
	id := s.job()
	switch s.r.IntN(18) {
	case 0, 1:
		s.command("job-pause", object{{"id", id}})
	case 2, 3:
		s.command("job-resume", object{{"id", id}})
	case 4:
		s.command("job-cancel", object{{"id", id}})
	case 5, 6:
		s.command("job-complete", object{{"id", id}})
	case 7, 8:
		s.command("job-finalize", object{{"id", id}})
	case 9, 10:
		s.command("job-dismiss", object{{"id", id}})
	case 11, 12, 13:
		s.command("block-job-set-speed", object{{"device", id}, {"speed", pick(s.r, 0, 0, 0, 0, 1, 1, -1)}})
	case 14, 15:
		o := object{{"device", id}}
		o.sometimes(s.r, 2, "force", s.in(2))
		s.command("block-job-cancel", o)
	case 16:
		s.command(pick(s.r, "block-job-pause", "block-job-resume", "block-job-complete"), object{{"device", id}})
	case 17:
		if s.in(2) {
			s.command(pick(s.r, "block-job-finalize", "block-job-dismiss"), object{{"id", id}})
		} else {
			s.command("block-job-change", object{{"id", id}, {"type", "mirror"}, {"copy-mode", pick(s.r, "write-blocking", "write-blocking", "background")}})
		}
	}
}

func (s *story) bitmap(kind string) {
	if kind == "sha256" {
		s.command("x-debug-block-dirty-bitmap-sha256", object{{"node", s.node()}, {"name", s.bitmapName()}})
		return
	}
	s.command("block-dirty-bitmap-"+kind, s.bitmapArguments(kind))
}

func (s *story) bitmapArguments(kind string) object {
	if kind == "merge" {
		sources := list{s.bitmapName()}
		for s.in(3) {
			sources = append(sources, pick[any](s.r, s.bitmapName(), object{{"node", s.node()}, {"name", s.bitmapName()}}))
		}
		return object{{"node", s.node()}, {"target", s.bitmapName()}, {"bitmaps", sources}}
	}
	o := object{{"node", s.node()}, {"name", s.bitmapName()}}
	if kind == "add" {
		o.sometimes(s.r, 3, "granularity", pick(s.r, 65536, 4096, 131072, 512, 1<<20))
		o.sometimes(s.r, 3, "persistent", true)
		o.sometimes(s.r, 4, "disabled", true)
	}
	return o
}

func (s *story) snapshot() (string, object) {
	switch s.r.IntN(6) {
	case 0, 1:
		return "blockdev-snapshot", object{{"node", s.node()}, {"overlay", pick(s.r, "o", "o", "o", "t", s.node())}}
	case 2:
		return "blockdev-snapshot-internal-sync", object{{"device", s.node()}, {"name", pick(s.r, "i0", "i1")}}
	}
	o := object{{"node-name", s.node()}, {"snapshot-file", pick(s.r, "s0.q", "s1.q", "missing/s")}, {"snapshot-node-name", pick(s.r, "s0", "s0", "s1", "n0")}}
	o.sometimes(s.r, 8, "mode", pick(s.r, "existing", "absolute-paths"))
	return "blockdev-snapshot-sync", o
}

func (s *story) transaction() {
	var actions list
	for range 1 + s.r.IntN(4) {
		name, data := "abort", object{}
		switch n := s.r.IntN(20); {
		case n < 6:
			// Enabling a bitmap that is not there kills the reference.
			kind := pick(s.r, "add", "add", "remove", "clear", "disable", "merge")
			name, data = "block-dirty-bitmap-"+kind, s.bitmapArguments(kind)
			if kind == "add" && s.in(2) {
				actions = append(actions, object{{"type", name}, {"data", data}})
				name, data = "block-dirty-bitmap-enable", data[:2:2]
			}
		case n < 16:
			name, data = s.backup()
		case n < 19:
			name, data = s.snapshot()
		}
		actions = append(actions, object{{"type", name}, {"data", data}})
	}
	o := object{{"actions", actions}}
	if s.in(2) {
		o = append(o, member{"properties", object{{"completion-mode", pick(s.r, "individual", "grouped", "grouped")}}})
	}
	s.command("transaction", o)
}

// transfer is a request of a client.
func (s *story) transfer() {
	x := &transfer{export: pick(s.r, "e", "e", "e", "e1", "ew"), op: pick(s.r, "write", "write", "write", "read", "zero", "discard")}
	x.offset, x.bytes = uint64(s.r.IntN(16))<<16, pick[uint64](s.r, 512, 4096, 65536, 65536, 131072)
	if x.offset+x.bytes > 1<<20 {
		x.offset -= x.bytes
	}
	if s.in(4) {
		x.offset += 512
		x.bytes = 512
	}
	x.fill = byte(100 + s.r.IntN(100))
	s.steps = append(s.steps, step{io: x})
}

// change changes the graph.
func (s *story) change() {
	switch s.r.IntN(14) {
	case 10:
		s.reopen()
	case 11, 12:
		s.changeDisks()
	case 13:
		s.command("block-set-write-threshold", object{{"node-name", pick(s.r, s.node(), s.target())}, {"write-threshold", pick(s.r, 0, 65536, 1<<19, 1<<20)}})
	case 0, 1:
		n := s.r.IntN(s.depth)
		o := object{{"driver", "qcow2"}, {"node-name", fmt.Sprintf("n%d", n)}, {"file", fmt.Sprintf("f%d", n)}}
		if n > 0 {
			o = append(o, member{"backing", pick[any](s.r, fmt.Sprintf("n%d", n-1), fmt.Sprintf("n%d", n-1), "n0", nil, s.node())})
		}
		o.sometimes(s.r, 3, "read-only", s.in(2))
		s.command("blockdev-reopen", object{{"options", list{o}}})
	case 2:
		s.command("blockdev-del", object{{"node-name", pick(s.r, s.node(), s.target())}})
	case 3, 4:
		s.command("block_resize", object{{"node-name", pick(s.r, s.node(), s.target())}, {"size", pick(s.r, 1<<20, 1<<21, 1<<20+65536, 1<<19)}})
	case 5:
		node, writable := pick(s.r, s.node(), s.target()), s.in(2)
		writable = writable && (s.inner || node == s.top() || node[0] != 'n')
		o := object{{"type", "nbd"}, {"id", pick(s.r, "e", "e1")}, {"node-name", node}, {"name", pick(s.r, "e", "e1")}, {"writable", writable}}
		o.sometimes(s.r, 4, "bitmaps", list{pick[any](s.r, s.bitmapName(), object{{"node", s.node()}, {"name", s.bitmapName()}})})
		s.command("block-export-add", o)
	case 6:
		s.command("block-export-del", object{{"id", pick(s.r, "e", "e1")}})
	case 7:
		s.command("blockdev-add", object{{"driver", pick(s.r, "copy-on-read", "raw")}, {"node-name", pick(s.r, "c", "x")}, {"file", pick(s.r, s.node(), s.target())}})
	case 8:
		s.command("change-backing-file", object{{"device", s.node()}, {"image-node-name", s.node()}, {"backing-file", s.fileName()}})
	case 9:
		s.command("blockdev-add", object{{"driver", "qcow2"}, {"node-name", pick(s.r, "o", "x")},
			{"file", object{{"driver", "file"}, {"filename", pick(s.r, "o.qcow2", "x.qcow2")}}}, {"backing", pick[any](s.r, nil, s.node(), s.node())}})
	}
}

func (s *story) query() {
	name := pick(s.r, "query-named-block-nodes", "x-debug-query-block-graph", "query-block-exports", "query-blockstats")
	if name == "query-named-block-nodes" {
		s.command(name, object{{"flat", true}})
		return
	}
	s.command(name, nil)
}
