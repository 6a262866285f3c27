package nbd

// The magic numbers of the handshake and of each header.
const (
	magicInit       = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption     = 0x49484156454f5054 // "IHAVEOPT"
	magicOldStyle   = 0x00420281861253
	magicOptReply   = 0x0003e889045565a9
	magicRequest    = 0x25609513
	magicExtRequest = 0x21e41c71
	magicSimple     = 0x67446698
	magicStructured = 0x668e33ef
	magicExtReply   = 0x6e8a278c
)

// HandshakeFlags are those of the two sides' first words.
type HandshakeFlags uint16

// The handshake flags; the client's have the same values.
const (
	HandshakeFixedNewstyle HandshakeFlags = 1 << iota
	HandshakeNoZeroes
)

// Option is what a client asks for in the handshake.
type Option uint32

// The options.
const (
	OptExportName      Option = 1
	OptAbort           Option = 2
	OptList            Option = 3
	OptPeekExport      Option = 4
	OptStartTLS        Option = 5
	OptInfo            Option = 6
	OptGo              Option = 7
	OptStructuredReply Option = 8
	OptListMetaContext Option = 9
	OptSetMetaContext  Option = 10
	OptExtendedHeaders Option = 11
)

// String is the option's name as error messages have it.
func (o Option) String() string {
	names := [...]string{
		OptExportName: "export name", OptAbort: "abort", OptList: "list", OptStartTLS: "starttls", OptInfo: "info", OptGo: "go",
		OptStructuredReply: "structured reply", OptListMetaContext: "list meta context", OptSetMetaContext: "set meta context",
		OptExtendedHeaders: "extended headers",
	}
	if uint64(o) < uint64(len(names)) && names[o] != "" {
		return names[o]
	}
	return "<unknown>"
}

// OptionReply is how the server answers an option.
type OptionReply uint32

// The replies; those with the high bit set are errors.
const (
	RepAck         OptionReply = 1
	RepServer      OptionReply = 2
	RepInfo        OptionReply = 3
	RepMetaContext OptionReply = 4

	repErrorBit             OptionReply = 1 << 31
	RepErrUnsupported                   = repErrorBit + 1
	RepErrPolicy                        = repErrorBit + 2
	RepErrInvalid                       = repErrorBit + 3
	RepErrPlatform                      = repErrorBit + 4
	RepErrTLSRequired                   = repErrorBit + 5
	RepErrUnknown                       = repErrorBit + 6
	RepErrShutdown                      = repErrorBit + 7
	RepErrBlockSizeRequired             = repErrorBit + 8
	RepErrTooBig                        = repErrorBit + 9
	RepErrExtHeaderRequired             = repErrorBit + 10
)

// String is the reply's name as error messages have it.
func (r OptionReply) String() string {
	names := map[OptionReply]string{
		RepAck: "ack", RepServer: "server", RepInfo: "info", RepMetaContext: "meta context",
		RepErrUnsupported: "unsupported", RepErrPolicy: "denied by policy", RepErrInvalid: "invalid",
		RepErrPlatform: "platform lacks support", RepErrTLSRequired: "TLS required", RepErrUnknown: "export unknown",
		RepErrShutdown: "server shutting down", RepErrBlockSizeRequired: "block size required",
		RepErrTooBig: "option payload too big", RepErrExtHeaderRequired: "extended headers required",
	}
	if name, ok := names[r]; ok {
		return name
	}
	return "<unknown>"
}

// IsError tells whether the reply refuses its option.
func (r OptionReply) IsError() bool { return r&repErrorBit != 0 }

// InfoType is a piece of information about an export.
type InfoType uint16

// The types of information.
const (
	InfoExport InfoType = iota
	InfoName
	InfoDescription
	InfoBlockSize
)

// TransmissionFlags say what an export can do.
type TransmissionFlags uint16

// The transmission flags.
const (
	FlagHasFlags TransmissionFlags = 1 << iota
	FlagReadOnly
	FlagSendFlush
	FlagSendFUA
	FlagRotational
	FlagSendTrim
	FlagSendWriteZeroes
	FlagSendDF
	FlagCanMultiConn
	FlagSendResize
	FlagSendCache
	FlagSendFastZero
	FlagBlockStatusPayload
)

// Command is what a request asks for.
type Command uint16

// The commands.
const (
	CmdRead Command = iota
	CmdWrite
	CmdDisconnect
	CmdFlush
	CmdTrim
	CmdCache
	CmdWriteZeroes
	CmdBlockStatus
	CmdResize
)

// String is the command's name as error messages have it.
func (c Command) String() string {
	names := [...]string{"read", "write", "disconnect", "flush", "trim", "cache", "write zeroes", "block status"}
	if int(c) < len(names) {
		return names[c]
	}
	return "<unknown>"
}

// CommandFlags modify a request.
type CommandFlags uint16

// The command flags.
const (
	CmdFlagFUA CommandFlags = 1 << iota
	CmdFlagNoHole
	CmdFlagDF
	CmdFlagReqOne
	CmdFlagFastZero
	CmdFlagPayloadLen
)

// ReplyType is the kind of a chunk.
type ReplyType uint16

// The kinds of chunks; those with the high bit set are errors.
const (
	ReplyNone           ReplyType = 0
	ReplyOffsetData     ReplyType = 1
	ReplyOffsetHole     ReplyType = 2
	ReplyBlockStatus    ReplyType = 5
	ReplyBlockStatusExt ReplyType = 6
	ReplyError          ReplyType = 1<<15 + 1
	ReplyErrorOffset    ReplyType = 1<<15 + 2
)

// IsError tells whether the chunk reports a failure.
func (t ReplyType) IsError() bool { return t&(1<<15) != 0 }

// ReplyFlags modify a chunk.
type ReplyFlags uint16

// ReplyDone marks a reply's last chunk.
const ReplyDone ReplyFlags = 1

// The status flags of the context base:allocation.
const (
	StateHole = 1 << iota
	StateZero
)

// StateDirty is the status flag of the contexts qemu:dirty-bitmap:NAME.
const StateDirty = 1

// The depths of the context qemu:allocation-depth: unallocated, in the image
// itself, in one below it.
const (
	DepthUnallocated = iota
	DepthLocal
	DepthBacking
)

// The names of meta contexts.
const (
	ContextAllocation      = "base:allocation"
	ContextAllocationDepth = "qemu:allocation-depth"
	// ContextDirtyBitmap is followed by the bitmap's name.
	ContextDirtyBitmap = "qemu:dirty-bitmap:"
)

// The limits that both sides keep to, in bytes.
const (
	// MaxString bounds names and descriptions (section "Strings").
	MaxString = 4096
	// MaxPayload bounds the data of one request or chunk, and without
	// extended headers the length of a read.
	MaxPayload = 32 << 20
)

// Mode is how the server replies in the transmission phase.
type Mode uint8

// The modes, each including the one before.
const (
	Simple Mode = iota
	Structured
	Extended
)

// Export is what a server tells of an export.
type Export struct {
	Name        string
	Description string // "" for none
	Size        uint64 // in bytes
	Flags       TransmissionFlags
	// MinBlock, PreferredBlock and MaxBlock are the sizes of requests that
	// the export demands, likes and takes at most, in bytes; zero when not
	// told (section "Block size constraints").
	MinBlock, PreferredBlock, MaxBlock uint32
}
