package block

// DebugEvent is a moment in the work on an image of which the driver blkdebug
// is told, so that it can make the requests that follow fail.
type DebugEvent uint8

// The events, in the order of the QAPI type BlkdebugEvent.
const (
	DebugL1Update DebugEvent = iota
	DebugL1GrowAllocTable
	DebugL1GrowWriteTable
	DebugL1GrowActivateTable
	DebugL2Load
	DebugL2Update
	DebugL2UpdateCompressed
	DebugL2AllocCowRead
	DebugL2AllocWrite
	DebugReadAIO
	DebugReadBackingAIO
	DebugReadCompressed
	DebugWriteAIO
	DebugWriteCompressed
	DebugVMStateLoad
	DebugVMStateSave
	DebugCowRead
	DebugCowWrite
	DebugReftableLoad
	DebugReftableGrow
	DebugReftableUpdate
	DebugRefblockLoad
	DebugRefblockUpdate
	DebugRefblockUpdatePart
	DebugRefblockAlloc
	DebugRefblockAllocHookup
	DebugRefblockAllocWrite
	DebugRefblockAllocWriteBlocks
	DebugRefblockAllocWriteTable
	DebugRefblockAllocSwitchTable
	DebugClusterAlloc
	DebugClusterAllocBytes
	DebugClusterFree
	DebugFlushToOS
	DebugFlushToDisk
	DebugPwritevRMWHead
	DebugPwritevRMWAfterHead
	DebugPwritevRMWTail
	DebugPwritevRMWAfterTail
	DebugPwritev
	DebugPwritevZero
	DebugPwritevDone
	DebugEmptyImagePrepare
	DebugL1ShrinkWriteTable
	DebugL1ShrinkFreeL2Clusters
	DebugCorWrite
	DebugClusterAllocSpace
	DebugNone

	DebugEvents // their number
)

var debugEventNames = [DebugEvents]string{
	"l1_update", "l1_grow_alloc_table", "l1_grow_write_table", "l1_grow_activate_table",
	"l2_load", "l2_update", "l2_update_compressed", "l2_alloc_cow_read", "l2_alloc_write",
	"read_aio", "read_backing_aio", "read_compressed", "write_aio", "write_compressed",
	"vmstate_load", "vmstate_save", "cow_read", "cow_write",
	"reftable_load", "reftable_grow", "reftable_update",
	"refblock_load", "refblock_update", "refblock_update_part", "refblock_alloc",
	"refblock_alloc_hookup", "refblock_alloc_write", "refblock_alloc_write_blocks",
	"refblock_alloc_write_table", "refblock_alloc_switch_table",
	"cluster_alloc", "cluster_alloc_bytes", "cluster_free",
	"flush_to_os", "flush_to_disk",
	"pwritev_rmw_head", "pwritev_rmw_after_head", "pwritev_rmw_tail", "pwritev_rmw_after_tail",
	"pwritev", "pwritev_zero", "pwritev_done", "empty_image_prepare",
	"l1_shrink_write_table", "l1_shrink_free_l2_clusters", "cor_write", "cluster_alloc_space", "none",
}

func (e DebugEvent) String() string { return debugEventNames[e] }

// ParseDebugEvent finds an event by its name.
func ParseDebugEvent(name string) (DebugEvent, bool) {
	for e, have := range debugEventNames {
		if have == name {
			return DebugEvent(e), true
		}
	}
	return 0, false
}

// Debug tells the child of an event. Few nodes listen; for all others this
// costs next to nothing.
func (c *Child) Debug(e DebugEvent) { c.node.debug(e) }

func (n *Node) debug(e DebugEvent) {
	if n.debugger != nil {
		n.debugger.DebugEvent(e)
	}
}

// debugFile tells the child that holds the node's data.
func (n *Node) debugFile(e DebugEvent) {
	if n.file != nil {
		n.file.node.debug(e)
	}
}
