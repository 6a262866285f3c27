package block

import "github.com/qmpblock/qmpblock/qerr"

// The options that every node has, whatever its driver.
const (
	optDriver       = "driver"
	optNodeName     = "node-name"
	optReadOnly     = "read-only"
	optAutoReadOnly = "auto-read-only"
	optForceShare   = "force-share"
	optDiscard      = "discard"
	optDetectZeroes = "detect-zeroes"
	optCacheDirect  = "cache.direct"
	optCacheNoFlush = "cache.no-flush"
	optBacking      = "backing"
	optFile         = "file"
	optFilename     = "filename"
	optActive       = "active"
)

// isCommonOption tells whether a node has the option whatever its driver.
func isCommonOption(key string) bool {
	switch key {
	case optDriver, optNodeName, optReadOnly, optAutoReadOnly, optForceShare, optDiscard,
		optDetectZeroes, optCacheDirect, optCacheNoFlush, optActive:
		return true
	}
	return false
}

// checkCommon refuses options that do not go together, and takes those of the
// common options that only concern the node's own requests.
func (a *OpenArgs) checkCommon(c commonState) error {
	if c.forceShare && c.flags&FlagRDWR != 0 {
		return qerr.New("force-share=on can only be used with read-only images")
	}
	n := a.Node
	n.filename = a.Options.GetString(optFilename)
	if a.file != nil {
		n.filename = a.file.filename
	}
	if n.drv.NeedsFilename && n.filename == "" {
		return qerr.New("The '%s' block driver requires a file name", n.drv.Name)
	}
	if err := c.takeDiscard(a.Options); err != nil {
		return err
	}
	if err := c.checkDetectZeroes(); err != nil {
		return err
	}
	n.flags, n.detectZeroes = c.flags, c.detectZeroes
	a.Flags = c.flags
	return nil
}

// commonState is what the common options say.
type commonState struct {
	flags        Flags
	forceShare   bool
	detectZeroes DetectZeroes
}

// takeFlags takes the common options that are needed first.
func takeFlags(flags Flags, o *Options) (c commonState, err error) {
	c.flags = flags &^ (FlagNoFlush | FlagNoCache | FlagRDWR | FlagAutoRDOnly)
	o.TakeString(optDriver, "")
	readOnly := false
	for _, b := range []struct {
		key  string
		into *bool
		flag Flags
	}{
		{key: optCacheDirect, flag: FlagNoCache},
		{key: optCacheNoFlush, flag: FlagNoFlush},
		{key: optReadOnly, into: &readOnly},
		{key: optAutoReadOnly, flag: FlagAutoRDOnly},
		{key: optForceShare, into: &c.forceShare},
	} {
		on, err := o.TakeBool(b.key, false)
		if err != nil {
			return c, err
		}
		if b.into != nil {
			*b.into = on
		} else if on {
			c.flags |= b.flag
		}
	}
	if !readOnly {
		c.flags |= FlagRDWR
	}
	active, err := o.TakeBool(optActive, c.flags&FlagInactive == 0)
	if err != nil {
		return c, err
	}
	if !active {
		c.flags |= FlagInactive
	}
	return c, nil
}

// checkDetectZeroes: zeroes can only be unmapped where discards are allowed.
func (c *commonState) checkDetectZeroes() error {
	if c.detectZeroes == DetectZeroesUnmap && c.flags&FlagUnmap == 0 {
		return qerr.New("setting detect-zeroes to unmap is not allowed without setting discard operation to unmap")
	}
	return nil
}

func (c *commonState) takeDiscard(o *Options) error {
	// Left out, it stays as it is: a new node has it off, and a reopened one
	// keeps it (observed: transcript reopen/defaults).
	switch o.TakeString(optDiscard, "") {
	case "":
	case "off", "ignore":
		c.flags &^= FlagUnmap
	case "on", "unmap":
		c.flags |= FlagUnmap
	default:
		return qerr.New("Invalid discard option")
	}
	mode, err := o.TakeEnum(optDetectZeroes, detectZeroesNames, int(DetectZeroesOff))
	if err != nil {
		return err
	}
	c.detectZeroes = DetectZeroes(mode)
	return nil
}

// ApplyAutoReadOnly makes a node that is being opened read-only because
// writing is impossible, if its options allow that; else it returns refusal.
func (n *Node) ApplyAutoReadOnly(refusal error) error {
	if n.ReadOnly() {
		return nil
	}
	if n.flags&FlagAutoRDOnly == 0 {
		return refusal
	}
	n.flags &^= FlagRDWR
	return nil
}
