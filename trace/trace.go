// Package trace holds the trace points of the program: named places that
// report what passes them, each switched on by a pattern on the command line
// (`--trace 'graph_*'`) and silent, at the price of one atomic load, until then.
//
// Points are listed in one table so that `--trace help` can print them. Names
// follow the reference's habit: the room first, words joined by underscores.
package trace

import (
	"path"
	"sync/atomic"

	"github.com/rs/zerolog"

	"github.com/qmpblock/qmpblock/qerr"
)

// Point is one trace point; its String is the name that patterns match.
type Point uint8

// The points, by room.
const (
	CoroutineDirect Point = iota
	CoroutineSpawn
	CoroutinePoll
	CoroutinePanic
	GraphAddNode
	GraphRemoveNode
	GraphAttachChild
	GraphDetachChild
	GraphLockWait
	GraphLockTaken
	GraphDrainBegin
	GraphDrainEnd
	NodeReopen
	NodeTruncate
	NodeMoveContext
	CommandStart
	CommandDone
	EventEmit
	numPoints
)

var names = [numPoints]string{
	CoroutineDirect:  "coroutine_direct",
	CoroutineSpawn:   "coroutine_spawn",
	CoroutinePoll:    "coroutine_poll",
	CoroutinePanic:   "coroutine_panic",
	GraphAddNode:     "graph_add_node",
	GraphRemoveNode:  "graph_remove_node",
	GraphAttachChild: "graph_attach_child",
	GraphDetachChild: "graph_detach_child",
	GraphLockWait:    "graph_lock_wait",
	GraphLockTaken:   "graph_lock_taken",
	GraphDrainBegin:  "graph_drain_begin",
	GraphDrainEnd:    "graph_drain_end",
	NodeReopen:       "node_reopen",
	NodeTruncate:     "node_truncate",
	NodeMoveContext:  "node_move_context",
	CommandStart:     "qmp_command_start",
	CommandDone:      "qmp_command_done",
	EventEmit:        "qmp_event_emit",
}

func (p Point) String() string { return names[p] }

// Points lists every trace point's name, in the order of the table.
func Points() []string { return names[:] }

// Tracer decides which points speak and writes their lines. A nil *Tracer is
// valid and silent.
type Tracer struct {
	log     zerolog.Logger
	enabled [numPoints]atomic.Bool
}

// New returns a tracer that writes to log, with every point off.
func New(log zerolog.Logger) *Tracer { return &Tracer{log: log} }

// SetOutput sends the lines to another logger. It is for the start of a
// program, before anything is traced.
func (t *Tracer) SetOutput(log zerolog.Logger) { t.log = log }

// Enable switches on the points whose names match a shell pattern. A leading
// '-' switches them off. A pattern without wildcards that names no point is an
// error, which the reference only warns of.
func (t *Tracer) Enable(pattern string) error {
	on := true
	if len(pattern) > 0 && pattern[0] == '-' {
		on, pattern = false, pattern[1:]
	}
	matched := false
	for p, name := range names {
		ok, err := path.Match(pattern, name)
		if err != nil {
			return qerr.New("bad trace pattern '%s'", pattern)
		}
		if ok {
			t.enabled[p].Store(on)
			matched = true
		}
	}
	if !matched && !hasWildcard(pattern) {
		return qerr.New("trace event '%s' does not exist", pattern)
	}
	return nil
}

// At returns the line a point is about to write, or nil when the point is
// off; the nil event takes fields and writes nothing.
func (t *Tracer) At(p Point) *zerolog.Event {
	if t == nil || !t.enabled[p].Load() {
		return nil
	}
	return t.log.Trace().Str("point", names[p])
}

func hasWildcard(pattern string) bool {
	for _, c := range pattern {
		if c == '*' || c == '?' || c == '[' {
			return true
		}
	}
	return false
}
