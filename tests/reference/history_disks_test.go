package reference

import "slices"

// open adds a node that can be opened again.
func (s *story) open(o object) {
	s.opened = append(s.opened, o)
	s.command("blockdev-add", o)
}

// disks opens disks beside the chain: w keeps bitmaps, of which bi is
// inconsistent; q is a quorum of q0 and q1, which q2 may join; requests to y
// fail.
func (s *story) disks() {
	if s.in(2) {
		s.command("blockdev-add", object{{"driver", "file"}, {"node-name", "wf"}, {"filename", "w.qcow2"}})
		o := object{{"driver", "qcow2"}, {"node-name", "w"}, {"file", "wf"}}
		o.sometimes(s.r, 8, "read-only", true)
		s.open(o)
		if s.in(2) {
			s.command("block-export-add", object{{"type", "nbd"}, {"id", "ew"}, {"node-name", "w"}, {"writable", true}})
		}
	}
	if s.in(4) {
		for _, name := range []string{"q0", "q1"} {
			s.command("blockdev-add", object{{"driver", "raw"}, {"node-name", name}, {"file", object{{"driver", "file"}, {"filename", name + ".raw"}}}})
		}
		s.command("blockdev-add", object{{"driver", "null-co"}, {"node-name", "q2"}, {"size", 1 << 20}, {"read-zeroes", true}})
		o := object{{"driver", "quorum"}, {"node-name", "q"}, {"children", list{"q0", "q1"}}, {"vote-threshold", pick(s.r, 1, 1, 2)}}
		s.open(o)
	}
	if s.in(3) {
		s.command("blockdev-add", object{{"driver", "null-co"}, {"node-name", "yz"}, {"size", 1 << 20}})
		s.command("blockdev-add", s.failing("y", "yz"))
	}
	if s.in(10) {
		s.command("object-add", object{{"qom-type", "iothread"}, {"id", "io0"}})
	}
}

// changeDisks does to disks what is of no use to images of a chain alone.
func (s *story) changeDisks() {
	switch s.r.IntN(8) {
	case 0:
		s.command("x-blockdev-change", object{{"parent", "q"}, {"node", pick(s.r, "q2", "q2", s.node())}})
	case 1:
		s.command("x-blockdev-change", object{{"parent", pick(s.r, "q", "q", s.node())}, {"child", pick(s.r, "children.0", "children.1", "children.2")}})
	case 2:
		s.command("blockdev-snapshot-delete-internal-sync", object{{"device", s.node()}, {"name", pick(s.r, "i0", "i1")}})
	case 3:
		s.command("blockdev-set-active", object{{"node-name", s.node()}, {"active", s.in(2)}})
	case 4:
		s.command("blockdev-add", object{{"driver", "snapshot-access"}, {"node-name", "x"}, {"file", pick(s.r, "c", "c", "flt")}})
	case 5:
		o := object{{"driver", "copy-before-write"}, {"node-name", "x"}, {"file", s.node()}, {"target", s.target()}}
		o.sometimes(s.r, 3, "bitmap", object{{"node", s.node()}, {"name", s.bitmapName()}})
		o.sometimes(s.r, 3, "on-cbw-error", pick(s.r, "break-guest-write", "break-snapshot"))
		s.command("blockdev-add", o)
	case 6:
		s.command("x-blockdev-set-iothread", object{{"node-name", s.node()}, {"iothread", pick[any](s.r, "io0", nil)}})
	case 7:
		s.command("block-export-del", object{{"id", pick(s.r, "e", "e1", "ew")}, {"mode", pick(s.r, "safe", "hard")}})
	}
}

// again closes an image and opens it again, so that what it keeps is read.
func (s *story) again() {
	o := pick(s.r, s.opened...)
	if s.in(2) {
		o = s.opened[s.depth-1]
	}
	name := o[1].value
	export := "e"
	if name == "w" {
		export = "ew"
	}
	s.command("block-export-del", object{{"id", export}, {"mode", "hard"}})
	s.command("blockdev-del", object{{"node-name", name}})
	s.command("blockdev-add", o)
	s.command("query-named-block-nodes", object{{"flat", true}})
	s.command("block-export-add", object{{"type", "nbd"}, {"id", export}, {"node-name", name}, {"name", export}, {"writable", name == "w" || name == s.top()}})
}

// reopen opens one or several nodes anew with some options changed. None is named
// twice: the reference never ends the drained section of one that is.
func (s *story) reopen() {
	var options list
	for _, n := range s.r.Perm(len(s.opened)) {
		o := slices.Clone(s.opened[n])
		o.sometimes(s.r, 6, "detect-zeroes", pick(s.r, "on", "off", "unmap"))
		o.sometimes(s.r, 6, "discard", pick(s.r, "unmap", "ignore"))
		o.sometimes(s.r, 8, "cache", object{{"direct", false}, {"no-flush", s.in(2)}})
		if o[len(o)-1].name != "read-only" {
			o.sometimes(s.r, 3, "read-only", s.in(2))
		}
		for i := range o {
			if o[i].name == "backing" && s.in(3) {
				o[i].value = pick[any](s.r, nil, "n0", s.node(), "flt")
			}
		}
		options = append(options, o)
		if !s.in(5) {
			break
		}
	}
	s.command("blockdev-reopen", object{{"options", options}})
}

// group is a transaction of backups of several disks, as programs make them:
// most members are in order, and one may fail at once or later.
func (s *story) group() {
	sources := []string{s.top(), "w", "n0", "q", "big", "n1"}
	targets := []string{"t", "u", "z", "y", "", ""}
	s.r.Shuffle(len(sources), func(i, j int) { sources[i], sources[j] = sources[j], sources[i] })
	s.r.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
	if s.in(2) {
		i := slices.Index(sources, s.top())
		sources[0], sources[i] = sources[i], sources[0]
	}
	var actions list
	action := func(name string, data object) {
		actions = append(actions, object{{"type", name}, {"data", data}})
	}
	for i := range 1 + s.r.IntN(3) {
		source, sync := sources[i], pick(s.r, "full", "full", "full", "top", "none", "incremental", "bitmap")
		o := object{{"job-id", []string{"j0", "j1", "j2"}[i]}, {"device", source}, {"sync", sync}}
		if sync == "incremental" || sync == "bitmap" {
			name := pick(s.r, "b0", "b1", "b2")
			if s.in(2) {
				action("block-dirty-bitmap-add", object{{"node", source}, {"name", name}})
			}
			o = append(o, member{"bitmap", name})
			if sync == "bitmap" {
				o = append(o, member{"bitmap-mode", pick(s.r, "on-success", "never", "always")})
			}
		}
		command := "blockdev-backup"
		if targets[i] == "" {
			command = "drive-backup"
			o = append(o, member{"target", []string{"b0.img", "b1.img", "b2.img"}[i]}, member{"format", pick(s.r, "qcow2", "raw")})
		} else {
			o = append(o, member{"target", targets[i]})
		}
		o.sometimes(s.r, 4, "on-target-error", s.onError())
		o.sometimes(s.r, 3, "speed", 1)
		o.sometimes(s.r, 3, "auto-finalize", false)
		o.sometimes(s.r, 3, "auto-dismiss", false)
		action(command, o)
		switch s.r.IntN(12) {
		case 0, 1, 2:
			kind := pick(s.r, "add", "clear", "disable", "merge", "remove")
			action("block-dirty-bitmap-"+kind, s.bitmapArguments(kind))
		case 3:
			action(s.snapshot())
		case 4:
			action("abort", object{})
		}
	}
	o := object{{"actions", actions}}
	if !s.in(4) {
		o = append(o, member{"properties", object{{"completion-mode", pick(s.r, "individual", "grouped", "grouped")}}})
	}
	s.command("transaction", o)
}
