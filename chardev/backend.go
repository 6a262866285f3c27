package chardev

import "github.com/qmpblock/qmpblock/sockets"

// Backend holds the options of one kind of character devices: a pointer to one
// of the structs below.
type Backend interface {
	kind() string
	common() *Common
}

// Common are options of all backends.
type Common struct {
	LogFile   *string // everything the frontend sends is written here as well
	LogAppend bool    // do not truncate the log
}

func (c *Common) common() *Common { return c }

// File writes to a file, which is created.
type File struct {
	Common
	Out    string
	In     *string // input is read from this file
	Append bool    // do not truncate Out
}

// Serial opens a serial port or another terminal.
type Serial struct {
	Common
	Device string
}

// Parallel opens a parallel port.
type Parallel struct {
	Common
	Device string
}

// Pipe opens the named pipes Device.in and Device.out, or Device alone.
type Pipe struct {
	Common
	Device string
}

// Socket listens on or connects to a stream socket.
type Socket struct {
	Common
	Addr        sockets.Address
	Server      *bool  // listen; default true
	Wait        *bool  // server: the first client must come before Add returns; default false
	NoDelay     *bool  // TCP sockets never delay what is written, so it changes nothing
	Reconnect   *int64 // client: seconds until a lost connection is tried again, 0: never
	ReconnectMS *int64 // the same in milliseconds
	TLSCreds    *string
	TLSAuthz    *string
	Telnet      bool
	TN3270      bool
	WebSocket   bool
}

// UDP sends and receives datagrams.
type UDP struct {
	Common
	Remote sockets.Address
	Local  *sockets.Address
}

// PTY makes a pseudo-terminal.
type PTY struct {
	Common
	Path *string // a symbolic link to the terminal is made here
}

// Null swallows everything.
type Null struct{ Common }

// Mux shares another character device.
type Mux struct {
	Common
	Chardev string
}

// Hub joins other character devices, at most four.
type Hub struct {
	Common
	Chardevs []string
}

// Stdio is the standard input and output of the process.
type Stdio struct {
	Common
	Signal *bool // Ctrl-C and the like raise signals; default true
}

// Ringbuf keeps the newest bytes in memory.
type Ringbuf struct {
	Common
	Size *int64 // bytes, a power of two; default 65536
}

// Memory is an old name for [Ringbuf].
type Memory struct{ Ringbuf }

// Other is a kind that the schema knows and that does not exist here.
type Other struct {
	Common
	Name string
}

func (*File) kind() string     { return "file" }
func (*Serial) kind() string   { return "serial" }
func (*Parallel) kind() string { return "parallel" }
func (*Pipe) kind() string     { return "pipe" }
func (*Socket) kind() string   { return "socket" }
func (*UDP) kind() string      { return "udp" }
func (*PTY) kind() string      { return "pty" }
func (*Null) kind() string     { return "null" }
func (*Mux) kind() string      { return "mux" }
func (*Hub) kind() string      { return "hub" }
func (*Stdio) kind() string    { return "stdio" }
func (*Ringbuf) kind() string  { return "ringbuf" }
func (*Memory) kind() string   { return "memory" }
func (o *Other) kind() string  { return o.Name }

func (s *Socket) isServer() bool { return s.Server == nil || *s.Server }
