// Package drivers lists the block drivers there are, for whoever makes a
// graph. It is the one place that knows them all: a driver is added by a line
// here.
package drivers

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/drivers/blkdebug"
	"github.com/qmpblock/qmpblock/drivers/blklogwrites"
	"github.com/qmpblock/qmpblock/drivers/copybeforewrite"
	"github.com/qmpblock/qmpblock/drivers/copyonread"
	"github.com/qmpblock/qmpblock/drivers/file"
	"github.com/qmpblock/qmpblock/drivers/luks"
	"github.com/qmpblock/qmpblock/drivers/nbd"
	"github.com/qmpblock/qmpblock/drivers/null"
	"github.com/qmpblock/qmpblock/drivers/qcow2"
	"github.com/qmpblock/qmpblock/drivers/quorum"
	"github.com/qmpblock/qmpblock/drivers/raw"
	"github.com/qmpblock/qmpblock/drivers/snapshotaccess"
)

// All returns every driver. The list is the caller's.
func All() []*block.Driver {
	return []*block.Driver{
		file.Driver(),
		file.HostDevice(),
		file.HostCdrom(),
		nbd.Driver(),
		null.Co(),
		null.Aio(),
		raw.Driver(),
		qcow2.Driver(),
		luks.Driver(),
		blkdebug.Driver(),
		blklogwrites.Driver(),
		copybeforewrite.Driver(),
		snapshotaccess.Driver(),
		copyonread.Driver(),
		quorum.Driver(),
	}
}
