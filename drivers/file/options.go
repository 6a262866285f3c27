package file

import (
	"errors"
	"strconv"
	"strings"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/qerr"
)

// The drivers' options.
const (
	optFilename          = "filename"
	optLocking           = "locking"
	optAIO               = "aio"
	optAIOMaxBatch       = "aio-max-batch"
	optDropCache         = "drop-cache"
	optCheckCacheDropped = "x-check-cache-dropped"
	optPRManager         = "pr-manager"
)

// options are those of one node, apart from the ones that every node has.
type options struct {
	filename string
	locking  locking
	native   bool
	cache    cacheOptions
}

// locking says whether the use of the file is shown to other processes.
type locking uint8

const (
	lockAuto locking = iota
	lockOn
	lockOff
	// lockPOSIX is lockOn where only locks of whole processes exist.
	lockPOSIX
)

var (
	lockingNames = []string{lockAuto: "auto", lockOn: "on", lockOff: "off"}
	aioNames     = []string{"threads", "native", "io_uring"}
)

const aioNative = 1

// takeOptions takes what the drivers know out of o.
func takeOptions(o *block.Options) (*options, error) {
	var r options
	r.filename = o.TakeString(optFilename, "")
	mode, err := takeName(o, optAIO, aioNames)
	if err != nil {
		return nil, err
	}
	r.native = mode == aioNative
	if err := takeMaxBatch(o); err != nil {
		return nil, err
	}
	lock, err := takeName(o, optLocking, lockingNames)
	if err != nil {
		return nil, err
	}
	r.locking = locking(lock)
	if id := o.TakeString(optPRManager, ""); id != "" {
		return nil, qerr.New("No persistent reservation manager with id '%s'", id)
	}
	r.cache, err = takeCacheOptions(o)
	return &r, err
}

// takeName takes one of several words; the first one is the default. The
// monitor has checked them already, names of the form json: have not been
// (text observed with qemu-img).
func takeName(o *block.Options, key string, names []string) (int, error) {
	word := o.TakeString(key, names[0])
	for i, name := range names {
		if name == word {
			return i, nil
		}
	}
	return 0, qerr.New("invalid parameter value: %s", word)
}

// takeMaxBatch checks the size of batches, of which there are none here. A
// negative number passes, as it does in the reference.
func takeMaxBatch(o *block.Options) error {
	text := o.TakeString(optAIOMaxBatch, "0")
	_, err := strconv.ParseUint(strings.TrimPrefix(text, "-"), 0, 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return qerr.New("Value '%s' is too large for parameter '%s'", text, optAIOMaxBatch)
	case err != nil:
		return qerr.New("Parameter '%s' expects a number", optAIOMaxBatch)
	}
	return nil
}

func (o *options) checkAIO(flags block.Flags) error {
	if o.native && flags&block.FlagNoCache == 0 {
		return qerr.New("aio=native was specified, but it requires cache.direct=on, which was not specified.")
	}
	return nil
}

// parseFilename makes an option of a name, which may carry the driver's own
// prefix.
func parseFilename(prefix string) func(string, *block.Options) error {
	return func(filename string, o *block.Options) error {
		o.Set(optFilename, block.StringOpt(strings.TrimPrefix(filename, prefix)))
		return nil
	}
}
