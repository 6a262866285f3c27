package file

import (
	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// CoBlockStatus tells data from holes, for callers that want to know: to all
// others everything is data, as no other file would be read there.
func (n *regular) CoBlockStatus(co *aio.Co, wantZero bool, offset, bytes int64) (block.Status, error) {
	st := block.Status{
		Flags: block.StatusData | block.StatusOffsetValid,
		Bytes: bytes,
		Map:   offset,
	}
	if !wantZero {
		return st, nil
	}
	co.BeginBrief()
	defer co.EndBlocking()
	hole, end := n.file.extent(offset)
	if hole {
		st.Flags = block.StatusZero | block.StatusOffsetValid
	}
	if end > offset {
		// Data may end in the middle of an aligned unit where the file ends.
		align := n.file.align.request
		st.Bytes = (end - offset + align - 1) &^ (align - 1)
	}
	return st, nil
}

// extent tells whether offset lies in a hole, and where the hole or the data
// ends; 0 means that it goes on to the end. Where the system does not know,
// there is data.
func (d *descriptor) extent(offset int64) (hole bool, end int64) {
	data, err := unix.Seek(d.fd, offset, unix.SEEK_DATA)
	switch {
	case err == unix.ENXIO:
		return true, 0
	case err != nil:
		return false, 0
	case data > offset:
		return true, data
	}
	end, err = unix.Seek(d.fd, offset, unix.SEEK_HOLE)
	if err != nil {
		return false, 0
	}
	return false, end
}
