package block

import (
	"slices"
	"strings"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
)

// probeSize is how much of a file the drivers get to see to find out whether
// it is theirs, in bytes.
const probeSize = 2048

// jsonPrefix marks a file name that is a set of options.
const jsonPrefix = "json:"

// takeJSONName replaces a file name that is made of options by these; those
// given besides go first.
func (r *openRequest) takeJSONName() error {
	text, ok := strings.CutPrefix(r.filename, jsonPrefix)
	if !ok {
		return nil
	}
	v, err := qjson.Parse([]byte(text))
	if err != nil {
		return qerr.Prepend(err, "Could not parse the JSON options: ")
	}
	if v.Kind() != qjson.Object {
		return qerr.New("Invalid JSON object given")
	}
	r.options.Merge(OptionsFromJSON(v))
	r.filename = ""
	return nil
}

// protocolFor finds the driver that a file name's protocol belongs to; plain
// names are devices or files.
func (g *Graph) protocolFor(filename string) (*Driver, error) {
	for _, d := range g.cfg.Drivers {
		if d.ProbeDevice != nil && d.ProbeDevice(filename) {
			return d, nil
		}
	}
	if !hasProtocol(filename) {
		return g.drivers["file"], nil
	}
	prefix := filename[:strings.IndexByte(filename, ':')]
	plain, transport, hasTransport := strings.Cut(prefix, "+")
	for _, d := range g.cfg.Drivers {
		if d.Prefix != "" && d.Prefix == plain && (!hasTransport || slices.Contains(d.Transports, transport)) {
			return d, nil
		}
	}
	return nil, qerr.New("Unknown protocol '%s'", prefix)
}

// parseFilename makes options of the file name, for the driver that will get
// them.
func (r *openRequest) parseFilename(drv *Driver) error {
	if r.options.Has(optFilename) {
		return qerr.New("Can't specify 'file' and 'filename' options at the same time")
	}
	name := r.filename
	r.filename = ""
	if drv.ParseFilename == nil {
		r.options.Set(optFilename, StringOpt(name))
		return nil
	}
	return drv.ParseFilename(name, r.options)
}

// probe finds the format of a file that nobody told: the driver that is most
// sure that the file is its own.
func (g *Graph) probe(l *aio.Lock, file *Node) (*Driver, error) {
	head, err := aio.Mixed(l, file.Context(), "probe", func(co *aio.Co) ([]byte, error) {
		length, err := file.CoGetLength(co)
		if err != nil {
			return nil, err
		}
		head := AlignedMemory(int(min(length, probeSize)))
		return head, file.CoPreadv(co, 0, Vec{head}, 0)
	})
	if err != nil {
		return nil, qerr.Prepend(err, "Could not read image for determining its format: ")
	}
	drv := g.bestFormat(head, file.Filename())
	if drv == nil {
		return nil, qerr.New("Could not determine image format: No compatible driver found")
	}
	return drv, nil
}

func (g *Graph) bestFormat(head []byte, filename string) *Driver {
	var best *Driver
	score := 0
	for _, d := range g.cfg.Drivers {
		if d.Probe == nil {
			continue
		}
		if s := d.Probe(head, filename); s > score {
			best, score = d, s
		}
	}
	return best
}

// CheckProbed refuses to write head at the beginning of a node whose format
// was only guessed, if it would look like another format from then on: who can
// write the disk could else make its host open files.
func (n *Node) CheckProbed(head []byte) bool {
	return !n.probed || n.graph.bestFormat(head, "") == n.drv
}

// warnProbed tells the user who left it to the disk's content what a writable
// disk's format is.
func (n *Node) warnProbed() {
	if n.probed && !n.ReadOnly() && n.graph.cfg.Warn != nil {
		n.graph.cfg.Warn("WARNING: Image format was not specified for '" + n.file.node.Filename() + "' and probing guessed raw.\n" +
			"         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.\n" +
			"         Specify the 'raw' format explicitly to remove the restrictions.")
	}
}

// Probed tells whether the node's format was found by looking at its content.
func (n *Node) Probed() bool { return n.probed }
