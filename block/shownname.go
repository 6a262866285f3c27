package block

import "sync"

// Nodes are found by the file name under which clients saw them last. That is
// [Node.Filename], unless something changed in their chain and nobody looked at
// them since (observed: own/jobs/commit-shown-names).

// shownNames are those that are no longer true.
type shownNames struct {
	mu   sync.Mutex
	past map[*Node]string
}

// ShownFilename is the file name under which clients saw the node last.
func (n *Node) ShownFilename() string {
	s := &n.graph.shown
	s.mu.Lock()
	past, ok := s.past[n]
	s.mu.Unlock()
	if ok {
		return past
	}
	return n.Filename()
}

// ShowFilename is [Node.Filename] for clients, who know the node, and what is
// below it, by its name of today from then on.
func (n *Node) ShowFilename() string {
	n.show()
	return n.Filename()
}

func (n *Node) show() {
	s := &n.graph.shown
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.past) > 0 {
		s.forget(n)
	}
}

func (s *shownNames) forget(n *Node) {
	delete(s.past, n)
	for _, c := range n.children {
		s.forget(c.node)
	}
}

// keepShown notes under which names a node, and those over it, were seen last,
// before they change.
func (n *Node) keepShown() {
	name := n.ShownFilename()
	s := &n.graph.shown
	s.mu.Lock()
	if s.past == nil {
		s.past = make(map[*Node]string)
	}
	s.past[n] = name
	s.mu.Unlock()
	n.Parents(func(c *Child) bool {
		if over := c.ParentNode(); over != nil {
			over.keepShown()
		}
		return true
	})
}

// gone forgets a node that is no more.
func (s *shownNames) gone(n *Node) {
	s.mu.Lock()
	delete(s.past, n)
	s.mu.Unlock()
}
