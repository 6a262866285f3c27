package block

// Flags are a node's open flags.
type Flags uint32

// The open flags.
const (
	// FlagRDWR: the node can be written to.
	FlagRDWR Flags = 1 << iota
	// FlagAutoRDOnly: fall back to read-only where writing is impossible.
	FlagAutoRDOnly
	// FlagNoCache: bypass the host's page cache (cache.direct).
	FlagNoCache
	// FlagNoFlush: flushes do nothing (cache.no-flush).
	FlagNoFlush
	// FlagUnmap: discards are passed on (discard=unmap).
	FlagUnmap
	// FlagInactive: another process owns the image.
	FlagInactive
	// FlagProtocol: the node is opened as a protocol layer, without probing.
	FlagProtocol
	// FlagNoBacking: do not open the backing file.
	FlagNoBacking
	// FlagCheck: the image is opened for checking.
	FlagCheck
)

// DetectZeroes says what happens to written zeroes.
type DetectZeroes uint8

// The modes, as in the QAPI type BlockdevDetectZeroesOptions.
const (
	DetectZeroesOff DetectZeroes = iota
	DetectZeroesOn
	DetectZeroesUnmap
)

var detectZeroesNames = []string{"off", "on", "unmap"}

func (d DetectZeroes) String() string { return detectZeroesNames[d] }
