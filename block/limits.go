package block

// defaultMemAlignment is what buffers are aligned to when nobody asks for
// less: a page, so that direct I/O always works.
const defaultMemAlignment = 4096

// maxIov is the number of buffers the system takes in one call.
const maxIov = 1024

// refreshLimits computes the node's limits from its children and its driver.
// Of a node in use it is for a write section: coroutines look at limits.
func (n *Node) refreshLimits() error {
	l := Limits{}
	haveStorage := false
	for _, c := range n.children {
		if c.role&(RoleData|RoleFiltered|RoleCOW) == 0 {
			continue
		}
		l.merge(&c.node.limits)
		if c.role&(RoleData|RoleFiltered) != 0 {
			haveStorage = true
		}
	}
	if !haveStorage {
		l.MinMemAlignment = SectorSize
		l.OptMemAlignment = defaultMemAlignment
		l.MaxIov = maxIov
	}
	l.RequestAlignment = 1
	if r, ok := n.instance.(LimitsRefresher); ok {
		if err := r.RefreshLimits(&l); err != nil {
			return err
		}
	}
	n.limits = l
	return nil
}

// merge tightens l by the limits of a child.
func (l *Limits) merge(c *Limits) {
	l.OptTransfer = max(l.OptTransfer, c.OptTransfer)
	l.MaxTransfer = minNonZero(l.MaxTransfer, c.MaxTransfer)
	l.OptMemAlignment = max(l.OptMemAlignment, c.OptMemAlignment)
	l.MinMemAlignment = max(l.MinMemAlignment, c.MinMemAlignment)
	l.MaxIov = int(minNonZero(int64(l.MaxIov), int64(c.MaxIov)))
}

// PassFlags lets a filter's changes have the flags that those of the node below
// may have, where it needs nothing of its own for them: a change is as durable,
// and zeroes are as cheap, as below.
func (l *Limits) PassFlags(below *Limits) {
	l.WriteFlags |= ReqWriteUnchanged | below.WriteFlags&ReqFUA
	l.ZeroFlags |= ReqWriteUnchanged | below.ZeroFlags&(ReqFUA|ReqMayUnmap|ReqNoFallback)
}

func minNonZero(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
