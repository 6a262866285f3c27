package block

import "fmt"

// Corruption is damage that a driver found in an image.
type Corruption struct {
	Message string
	// Offset and Size are where a write would have gone that was refused,
	// in bytes; -1 if it is something else.
	Offset, Size int64
	// Fatal says that the node cannot be used any more.
	Fatal bool
}

// ReportCorrupt is for drivers: it tells of damage. A fatal one takes the image
// out of the node, as a medium is ejected.
func (n *Node) ReportCorrupt(c Corruption) {
	if c.Fatal {
		n.ejected.Store(true)
	}
	if f := n.graph.cfg.ImageCorrupted; f != nil {
		f(n.name, c)
	}
}

// Complain is for drivers: it tells the one who started the program of what no
// client is told.
func (n *Node) Complain(format string, args ...any) {
	if f := n.graph.cfg.Complain; f != nil {
		f(fmt.Sprintf(format, args...))
	}
}

// Eject is for drivers: the image cannot be used any more.
func (n *Node) Eject() { n.ejected.Store(true) }

// Ejected tells whether the image was found damaged beyond use, or the node is a
// filter that was taken out of the graph.
func (n *Node) Ejected() bool { return n.ejected.Load() }

// absent tells whether the node has nothing that could serve requests.
func (n *Node) absent() bool { return n.instance == nil || n.ejected.Load() }
