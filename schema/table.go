package schema

import (
	"context"
	"slices"
	"sync"

	"github.com/qmpblock/qmpblock/qjson"
)

// ordinal is the place of a command or event in the schema.
type ordinal int

// RawHandler runs a command: it reads the arguments, which are absent or an
// object, and appends the value of the reply's "return" member to out.
type RawHandler func(ctx context.Context, args qjson.Value, out []byte) ([]byte, error)

// Command is a command that has a handler.
type Command struct {
	Name string
	// Since is the release that brought the command.
	Since Version
	// AllowOOB says that it may be executed out of band.
	AllowOOB bool
	// AllowPreconfig says that it may run before the machine exists.
	AllowPreconfig bool
	// Features are the feature flags that introspection shows.
	Features []string
	// Run decodes the arguments, calls the handler and appends what it
	// returned. An error leaves out as it was.
	Run RawHandler

	order ordinal
}

// commandInfo is what the schema knows of a command.
type commandInfo struct {
	name           string
	order          ordinal
	since          Version
	allowOOB       bool
	allowPreconfig bool
	features       []string
}

// Table holds the commands and events of one personality: it answers what was
// registered, and nothing else exists for a client. It is filled before it is
// used, and then only read.
type Table struct {
	version  Version
	byName   map[string]*Command
	byOrder  [ordinals]*Command
	declared [ordinals]bool
	decoders sync.Pool
}

// NewTable returns an empty table that answers as the newest release.
func NewTable() *Table { return NewTableFor(Newest) }

// NewTableFor returns an empty table that answers as the given release:
// commands, members and values which are newer do not exist.
func NewTableFor(v Version) *Table {
	return &Table{
		version:  v,
		byName:   map[string]*Command{},
		decoders: sync.Pool{New: func() any { return newDecoder() }},
	}
}

// Version returns the release the table answers as.
func (t *Table) Version() Version { return t.version }

// Lookup returns the command with a name, nil if there is none.
func (t *Table) Lookup(name string) *Command { return t.byName[name] }

// Commands returns all commands in the order of the schema. query-commands
// lists them the other way round.
func (t *Table) Commands() []*Command {
	all := make([]*Command, 0, len(t.byName))
	for _, c := range t.byOrder {
		if c != nil {
			all = append(all, c)
		}
	}
	return all
}

// Emits declares events that may be sent, so that introspection shows them.
// Only the types of the values matter.
func (t *Table) Emits(events ...Event) {
	for _, e := range events {
		t.declared[e.order()] = true
	}
}

// register makes a command known, unless it is newer than the table.
func (t *Table) register(index int, run RawHandler) {
	info := &commandInfos[index]
	if info.since > t.version {
		return
	}
	c := &Command{
		Name:           info.name,
		Since:          info.since,
		AllowOOB:       info.allowOOB,
		AllowPreconfig: info.allowPreconfig,
		Features:       slices.Clone(info.features),
		Run:            run,
		order:          info.order,
	}
	t.byName[c.Name] = c
	t.byOrder[c.order] = c
}

// Event is something that happened, as sent to clients.
type Event interface {
	// EventName returns the name on the wire.
	EventName() string
	// AppendData appends the event's data; nothing when it has none.
	AppendData(dst []byte) []byte

	appendData(dst []byte, version Version) []byte
	order() ordinal
}

// AppendData appends an event's data as the table's release prints it.
func (t *Table) AppendData(dst []byte, e Event) []byte { return e.appendData(dst, t.version) }
