package control

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/schema"
)

// queryBlockstats counts what was done, by device or, with query-nodes, by
// node.
func (i *Instance) queryBlockstats(l *aio.Lock, a *schema.QueryBlockstatsArguments) ([]*schema.BlockStats, error) {
	if deref(a.QueryNodes) {
		list := []*schema.BlockStats{}
		i.graph.NodesOldestFirst(func(n *block.Node) bool {
			list = append(list, nodeStats(n, false))
			return true
		})
		return list, nil
	}
	return i.deviceStats(), nil
}

// nodeStats counts what a node itself knows, and the same of what is below.
// With backing, the chain of backing files comes along, which a device shows, and
// filters that users do not know of are left out.
func nodeStats(n *block.Node, backing bool) *schema.BlockStats {
	if backing {
		n = n.SkipImplicit()
	}
	name := n.Name()
	s := &schema.BlockStats{
		NodeName: &name,
		Stats: schema.BlockDeviceStats{
			WrHighestOffset: int64(n.WrHighestOffset()),
			TimedStats:      []*schema.BlockDeviceTimedStats{},
		},
		DriverSpecific: driverStats(n),
	}
	if c := storage(n); c != nil {
		s.Parent = nodeStats(c.Node(), backing)
	}
	if below := n.FilterOrCow(); backing && below != nil {
		s.Backing = nodeStats(below, backing)
	}
	return s
}

// storage is the child that stands for a node's own storage, else the only one
// in which it stores (observed: own/quorum/stats).
func storage(n *block.Node) (only *block.Child) {
	if c := n.PrimaryChild(); c != nil {
		return c
	}
	for _, c := range n.Children() {
		if c.Role()&(block.RoleData|block.RoleMetadata|block.RoleFiltered) == 0 {
			continue
		}
		if only != nil {
			return nil
		}
		only = c
	}
	return only
}

func driverStats(n *block.Node) *schema.BlockStatsSpecific {
	g, ok := n.Instance().(block.StatsGetter)
	if !ok {
		return nil
	}
	stats := g.DriverStats()
	if stats == nil {
		return nil
	}
	driver, ok := schema.ParseEnum[schema.BlockdevDriver](stats.Driver)
	if !ok {
		return nil
	}
	return &schema.BlockStatsSpecific{
		Driver: driver,
		Variant: &schema.BlockStatsSpecificFile{
			DiscardNbOk:     stats.DiscardsOK,
			DiscardNbFailed: stats.DiscardsFailed,
			DiscardBytesOk:  stats.DiscardBytes,
		},
	}
}

// fillBackendStats adds what a backend's user did.
func fillBackendStats(s *schema.BlockDeviceStats, from *block.Stats) {
	read, write := from.Counts(block.OpRead), from.Counts(block.OpWrite)
	flush, unmap := from.Counts(block.OpFlush), from.Counts(block.OpUnmap)
	s.RdBytes, s.RdOperations, s.RdMerged = int64(read.Bytes), int64(read.Ops), int64(read.Merged)
	s.FailedRdOperations, s.InvalidRdOperations, s.RdTotalTimeNs = int64(read.Failed), int64(read.Invalid), int64(read.TotalNS)
	s.WrBytes, s.WrOperations, s.WrMerged = int64(write.Bytes), int64(write.Ops), int64(write.Merged)
	s.FailedWrOperations, s.InvalidWrOperations, s.WrTotalTimeNs = int64(write.Failed), int64(write.Invalid), int64(write.TotalNS)
	s.FlushOperations, s.FailedFlushOperations = int64(flush.Ops), int64(flush.Failed)
	s.InvalidFlushOperations, s.FlushTotalTimeNs = int64(flush.Invalid), int64(flush.TotalNS)
	s.UnmapBytes, s.UnmapOperations, s.UnmapMerged = int64(unmap.Bytes), int64(unmap.Ops), int64(unmap.Merged)
	s.FailedUnmapOperations, s.InvalidUnmapOperations, s.UnmapTotalTimeNs = int64(unmap.Failed), int64(unmap.Invalid), int64(unmap.TotalNS)
	if idle, ok := from.IdleTime(); ok {
		ns := idle.Nanoseconds()
		s.IdleTimeNs = &ns
	}
}
