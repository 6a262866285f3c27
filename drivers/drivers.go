// Package drivers lists every block driver of the program, in one place and
// without tricks: what is in All can be named in options.
package drivers

import (
	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/drivers/blklogwrites"
	"github.com/qmpblock/qmpblock/drivers/file"
	"github.com/qmpblock/qmpblock/drivers/null"
	"github.com/qmpblock/qmpblock/drivers/raw"
)

// All returns every driver.
func All() []*block.Driver {
	return []*block.Driver{
		file.Driver(), file.HostDevice(), file.HostCdrom(),
		null.Co(), null.Aio(),
		raw.Driver(),
		blklogwrites.Driver(),
	}
}
