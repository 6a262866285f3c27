package block

// GraphDump is the whole graph for debugging, in the order in which it was
// visited: backends first, then jobs, then nodes from the oldest on.
type GraphDump struct {
	Nodes []GraphDumpNode
	Edges []GraphDumpEdge
}

// GraphDumpKind tells what an entry of the dump is.
type GraphDumpKind uint8

// The kinds.
const (
	DumpedNode GraphDumpKind = iota
	DumpedBackend
	DumpedJob
)

// GraphDumpNode is a node, a backend or a job.
type GraphDumpNode struct {
	ID   int
	Kind GraphDumpKind
	Name string
}

// GraphDumpEdge is an edge; Parent and Child are IDs.
type GraphDumpEdge struct {
	Parent, Child int
	Name          string
	Perm, Shared  Perm
}

// Dump lists all backends, nodes and edges. IDs are given in the order in
// which they are first met, edges included.
func (g *Graph) Dump() *GraphDump {
	d := dumper{ids: make(map[any]int)}
	g.Backends(func(b *Backend) bool {
		d.node(b, DumpedBackend, b.label())
		if b.root != nil {
			d.edge(b, b.root)
		}
		return true
	})
	for h := g.holders; h != nil; h = h.next {
		d.node(h, DumpedJob, h.holder.Label())
		for _, c := range h.edges {
			d.edge(h, c)
		}
	}
	g.NodesOldestFirst(func(n *Node) bool {
		d.node(n, DumpedNode, n.name)
		for _, c := range n.children {
			d.edge(n, c)
		}
		return true
	})
	return &d.dump
}

type dumper struct {
	dump GraphDump
	ids  map[any]int
}

func (d *dumper) id(x any) int {
	if d.ids[x] == 0 {
		d.ids[x] = len(d.ids) + 1
	}
	return d.ids[x]
}

func (d *dumper) node(x any, kind GraphDumpKind, name string) {
	d.dump.Nodes = append(d.dump.Nodes, GraphDumpNode{d.id(x), kind, name})
}

func (d *dumper) edge(parent any, c *Child) {
	d.dump.Edges = append(d.dump.Edges, GraphDumpEdge{d.id(parent), d.id(c.node), c.name, c.perm, c.shared})
}

// label is what tells the backend apart from others: its own name, or that
// of its device.
func (b *Backend) label() string {
	if b.name != "" {
		return b.name
	}
	return b.device
}
