package block

// SetWriteThreshold arms the event that tells when a write passes the given
// offset, in bytes; 0 disarms it.
func (n *Node) SetWriteThreshold(bytes uint64) { n.threshold.Store(bytes) }

// WriteThreshold is the armed threshold in bytes, 0 if there is none.
func (n *Node) WriteThreshold() uint64 { return n.threshold.Load() }

// checkThreshold fires the event once: the threshold is disarmed by whoever
// passes it first.
func (n *Node) checkThreshold(offset, bytes int64) {
	threshold := n.threshold.Load()
	end := uint64(offset + bytes)
	if threshold == 0 || end <= threshold {
		return
	}
	if n.threshold.CompareAndSwap(threshold, 0) && n.graph.cfg.WriteThreshold != nil {
		n.graph.cfg.WriteThreshold(n.name, threshold, end-threshold)
	}
}
