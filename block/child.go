package block

// owner is who holds a node by an edge: a node or a backend.
type owner interface {
	// describe names the owner in permission errors ("node 'q0'").
	describe() string
	// drainedBegin, drainedEnd and busy carry a drained section upwards; keepOut
	// and letIn what it is to requests.
	drainedBegin()
	drainedEnd()
	busy() bool
	keepOut()
	letIn()
	// resized tells that the child's length has changed.
	resized()
}

// Child is an edge of the graph, from its owner down to a node.
type Child struct {
	name   string
	role   Role
	owner  owner
	node   *Node
	perm   Perm
	shared Perm
	// blocker keeps a backing file in its place.
	blocker *Blocker
	// frozen counts those who need the edge as it is.
	frozen int

	// Links of the node's list of parents, the newest first.
	prevParent, nextParent *Child
}

// Name is what the owner calls the child: "file", "backing", "root".
func (c *Child) Name() string { return c.name }

// Role is what the child is for its owner.
func (c *Child) Role() Role { return c.role }

// Node is the lower end of the edge.
func (c *Child) Node() *Node { return c.node }

// Perm and Shared are what the owner takes on the node and lets others have.
func (c *Child) Perm() Perm { return c.perm }

// Shared are the permissions that others may have.
func (c *Child) Shared() Perm { return c.shared }

// ParentNode is the owner if it is a node, else nil.
func (c *Child) ParentNode() *Node {
	n, _ := c.owner.(*Node)
	return n
}

// permCount counts, for one permission, how a node's parents stand to it, so
// that a conflict is noticed without asking each parent.
type permCount struct {
	used, unshared, both int32
}

// parentList is the set of edges that lead to a node, with what they require.
type parentList struct {
	head   *Child
	tail   *Child
	counts [permBits]permCount
}

// addBefore puts an edge into the list before another one, nil for the end:
// where it was before a change that is undone.
func (p *parentList) addBefore(c, next *Child) {
	prev := p.tail
	if next != nil {
		prev = next.prevParent
		next.prevParent = c
	} else {
		p.tail = c
	}
	if prev != nil {
		prev.nextParent = c
	} else {
		p.head = c
	}
	c.prevParent, c.nextParent = prev, next
	p.count(c, 1)
}

func (p *parentList) remove(c *Child) {
	p.count(c, -1)
	if c.prevParent != nil {
		c.prevParent.nextParent = c.nextParent
	} else {
		p.head = c.nextParent
	}
	if c.nextParent != nil {
		c.nextParent.prevParent = c.prevParent
	} else {
		p.tail = c.prevParent
	}
	c.prevParent, c.nextParent = nil, nil
}

func (p *parentList) setPerm(c *Child, perm, shared Perm) {
	p.count(c, -1)
	c.perm, c.shared = perm, shared
	p.count(c, 1)
}

func (p *parentList) count(c *Child, delta int32) {
	for i := range p.counts {
		used := c.perm&(1<<i) != 0
		unshared := c.shared&(1<<i) == 0
		if used {
			p.counts[i].used += delta
		}
		if unshared {
			p.counts[i].unshared += delta
		}
		if used && unshared {
			p.counts[i].both += delta
		}
	}
}

// cumulative is what all parents together take and share.
func (p *parentList) cumulative() (perm, shared Perm) {
	for i, n := range p.counts {
		if n.used > 0 {
			perm |= 1 << i
		}
		if n.unshared == 0 {
			shared |= 1 << i
		}
	}
	return perm, shared
}

// conflicting tells whether some parent takes what another one does not share.
func (p *parentList) conflicting() bool {
	for _, n := range p.counts {
		if int64(n.used)*int64(n.unshared) > int64(n.both) {
			return true
		}
	}
	return false
}

// conflict finds the parents that are in conflict, in the order in which the
// reference finds them: of those who deny something, the newest first.
func (p *parentList) conflict() (taker, denier *Child, perms Perm) {
	for denier := p.head; denier != nil; denier = denier.nextParent {
		for taker := p.head; taker != nil; taker = taker.nextParent {
			if taker != denier && taker.perm&^denier.shared != 0 {
				return taker, denier, taker.perm &^ denier.shared
			}
		}
	}
	return nil, nil, 0
}
