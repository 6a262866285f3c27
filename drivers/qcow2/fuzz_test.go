package qcow2_test

import (
	"encoding/binary"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
)

// blank is an image without content, made by hand: header, refcount table,
// one refcount block, and the L1 table, a cluster each.
func blank(version uint32, clusterBits uint, size uint64, incompatible uint64) []byte {
	cluster := 1 << clusterBits
	b := make([]byte, 4*cluster)
	be := binary.BigEndian
	copy(b, "QFI\xfb")
	be.PutUint32(b[4:], version)
	be.PutUint32(b[20:], uint32(clusterBits))
	be.PutUint64(b[24:], size)
	entry := uint64(8)
	if incompatible&16 != 0 {
		entry = 16
	}
	perL1 := uint64(cluster) * uint64(cluster) / entry
	be.PutUint32(b[36:], uint32((size+perL1-1)/perL1))
	be.PutUint64(b[40:], uint64(3*cluster))
	be.PutUint64(b[48:], uint64(cluster))
	be.PutUint32(b[56:], 1)
	if version == 3 {
		be.PutUint64(b[72:], incompatible)
		be.PutUint32(b[96:], 4)
		be.PutUint32(b[100:], 104)
	}
	be.PutUint64(b[cluster:], uint64(2*cluster))
	for i := range 4 {
		be.PutUint16(b[2*cluster+2*i:], 1)
	}
	return b
}

// used is a blank image after some requests.
func used(tb testing.TB, image []byte, cluster int64) []byte {
	b := bench(tb, taped(&tape{}, map[string][]byte{"": image}, nil))
	n := b.Add(`{"driver":"qcow2","node-name":"q","discard":"unmap","file":{"driver":"taped","node-name":"f"}}`)
	blk := b.Use(n)
	for _, err := range []error{
		blk.Pwritev(aio.Outside, 0, drivertest.Fill(1, int(3*cluster)), 0),
		blk.PwriteZeroes(aio.Outside, cluster, cluster, 0),
		in(n, func(co *aio.Co) error {
			return n.CoPwritev(co, 4*cluster, drivertest.Fill(2, int(2*cluster)), block.ReqCompressed)
		}),
		blk.Flush(aio.Outside),
	} {
		if err != nil {
			tb.Fatal(err)
		}
	}
	return n.File().Node().Instance().(*tapedDisk).bytes()
}

// Whatever an image holds: nothing panics, nothing hangs, and what is written
// to one that can be opened can be read.
func FuzzImage(f *testing.F) {
	for _, image := range [][]byte{
		used(f, blank(3, 9, 64<<10, 0), 512),
		used(f, blank(2, 9, 64<<10, 0), 512),
		used(f, blank(3, 14, 1<<20, 16), 1<<14),
		used(f, blank(3, 12, 256<<10, 1), 4096),
	} {
		f.Add(image, uint32(40), uint64(2))
		f.Add(image, uint32(72), uint64(1))
		f.Add(image, uint32(len(image)/2), uint64(0x4000000000000200))
	}
	f.Fuzz(func(t *testing.T, image []byte, at uint32, value uint64) {
		if len(image) > 1<<20 {
			return
		}
		if int(at)+8 <= len(image) {
			var raw [8]byte
			binary.BigEndian.PutUint64(raw[:], value)
			copy(image[at:], raw[:])
		}
		if len(image) > 24 && image[21] == 0 && image[23] > 18 {
			return // large clusters are slow, no more
		}
		try(t, image)
	})
}

// try opens an image and uses it; every request may fail.
func try(t *testing.T, image []byte) {
	b := bench(t, taped(&tape{}, map[string][]byte{"": image}, nil))
	n, err := b.TryAdd(`{"driver":"qcow2","node-name":"q","discard":"unmap","backing":null,"overlap-check":"all",
		"file":{"driver":"taped"}}`)
	if err != nil {
		return
	}
	blk, err := b.TryUse(n, block.PermAll, block.PermAll)
	if err != nil {
		return
	}
	length, err := n.GetLength(aio.Outside)
	if err != nil {
		return
	}
	buf := block.Vec{make([]byte, 4096)}
	for _, offset := range []int64{0, length / 2, length - 4096} {
		if offset < 0 || offset+4096 > length {
			continue
		}
		_ = blk.Preadv(aio.Outside, offset, buf)
		_, _, _ = n.BlockStatusAbove(aio.Outside, nil, false, true, offset, 4096)
		if blk.Pwritev(aio.Outside, offset, drivertest.Fill(0xa5, 4096), 0) == nil {
			if blk.Preadv(aio.Outside, offset, buf) == nil && buf[0][17] != 0xa5 {
				t.Errorf("at %d: wrote 0xa5, read %#x", offset, buf[0][17])
			}
		}
		_ = blk.PwriteZeroes(aio.Outside, offset, 4096, block.ReqMayUnmap)
		_ = blk.Pdiscard(aio.Outside, offset, 4096)
	}
	_ = in(n, func(co *aio.Co) error {
		_, err := n.Instance().(block.SpecificInfoGetter).SpecificInfo(co)
		return err
	})
	_ = blk.Flush(aio.Outside)
	if length < 1<<30 {
		_ = blk.Truncate(aio.Outside, length+512*1024, false, block.PreallocMetadata, 0)
		_ = blk.Truncate(aio.Outside, length/2/512*512, false, block.PreallocOff, 0)
	}
}
