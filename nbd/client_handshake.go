package nbd

import (
	"encoding/binary"
	"io"
	"net"

	"github.com/qmpblock/qmpblock/qerr"
)

// ClientConfig is what a client brings to a handshake.
type ClientConfig struct {
	// Export is the name of the export that is wanted.
	Export string
	// MetaContext is the context that block status shall be asked of, "" for
	// none.
	MetaContext string
	// Mode is the best mode that the client wants. The server may know less.
	Mode Mode
	// StartTLS makes a connection secret; nil: the client does not want TLS.
	StartTLS func(net.Conn) (net.Conn, error)
}

// ClientSession is what a client's handshake has led to.
type ClientSession struct {
	// Conn is the connection, with TLS if that was asked for.
	Conn net.Conn
	Mode Mode
	// Export is the export that was entered. Its block sizes are zero where
	// the server told none.
	Export Export
	// HasContext tells whether the server knows the context; ContextID is how
	// it calls it.
	HasContext bool
	ContextID  uint32
}

// ClientHandshake leads the client's side of the handshake, with servers of
// any age (sections "Fixed newstyle negotiation", "Newstyle negotiation" and
// "Oldstyle negotiation"). Its errors are for people, in the reference's words
// (observed, like what is forgiven and what is not). The caller closes conn,
// at any time to end the handshake early.
func ClientHandshake(conn net.Conn, cfg ClientConfig) (*ClientSession, error) {
	switch {
	case len(cfg.Export) > MaxString:
		return nil, qerr.New("export name too long to send to server")
	case len(cfg.MetaContext) > MaxString:
		return nil, qerr.New("x-dirty-bitmap query too long to send to server")
	}
	h := &clientHandshake{cfg: cfg, s: &ClientSession{Conn: conn, Export: Export{Name: cfg.Export}}}
	if err := h.run(); err != nil {
		h.abort()
		return nil, err
	}
	return h.s, nil
}

// maxListed bounds the number of exports that a server can list.
const maxListed = 1 << 16

// ListExports asks a server for the names and descriptions of its exports. The
// connection is of no use afterwards.
func ListExports(conn net.Conn, startTLS func(net.Conn) (net.Conn, error)) ([]Export, error) {
	h := &clientHandshake{cfg: ClientConfig{StartTLS: startTLS}, s: &ClientSession{Conn: conn}}
	defer h.abort()
	age, err := h.begin()
	if err != nil {
		return nil, err
	}
	if age != fixedNewstyle {
		return nil, qerr.New("Server does not support listing exports")
	}
	var exports []Export
	supported, err := h.list(func(e Export) error {
		if len(exports) == maxListed {
			return qerr.New("Server lists more than %d exports", maxListed)
		}
		exports = append(exports, e)
		return nil
	})
	if err == nil && !supported {
		err = qerr.New("Server does not support listing exports")
	}
	return exports, err
}

// style is what a server's first words tell of its age.
type style uint8

const (
	oldstyle      style = iota // one export, no choice
	newstyle                   // an export is chosen by name
	fixedNewstyle              // options are answered
)

type clientHandshake struct {
	cfg      ClientConfig
	s        *ClientSession
	noZeroes bool
	// answers says that the server is in a state in which it takes options,
	// so that the handshake can be ended in due form.
	answers bool
	buf     [20]byte
}

func (h *clientHandshake) run() error {
	age, err := h.begin()
	switch {
	case err != nil:
		return err
	case age == oldstyle:
		return h.oldExport()
	case age == newstyle:
		return h.exportName()
	}
	if err := h.chooseMode(); err != nil {
		return err
	}
	if err := h.setMetaContext(); err != nil {
		return err
	}
	return h.enter()
}

// abort ends the handshake in due form, if the server still listens. Nobody
// waits for its answer.
func (h *clientHandshake) abort() {
	if h.answers {
		_, _ = h.s.Conn.Write(h.appendOption(nil, OptAbort, 0))
	}
}

// begin exchanges the first words and starts TLS if it is wanted.
func (h *clientHandshake) begin() (style, error) {
	magic, err := h.readUint64("initial magic")
	if err != nil {
		return 0, err
	}
	if magic != magicInit {
		return 0, qerr.New("Bad initial magic received: %#x", magic)
	}
	if magic, err = h.readUint64("server magic"); err != nil {
		return 0, err
	}
	switch magic {
	case magicOldStyle:
		if h.cfg.StartTLS != nil {
			return 0, errNoTLS()
		}
		return oldstyle, nil
	case magicOption:
		return h.greet()
	}
	return 0, qerr.New("Bad server magic received: %#x", magic)
}

func errNoTLS() error { return qerr.New("Server does not support STARTTLS") }

// greet answers a newstyle server with the flags that both sides know.
func (h *clientHandshake) greet() (style, error) {
	if err := h.read(h.buf[:2], "server flags"); err != nil {
		return 0, err
	}
	flags := HandshakeFlags(binary.BigEndian.Uint16(h.buf[:])) & (HandshakeFixedNewstyle | HandshakeNoZeroes)
	h.noZeroes = flags&HandshakeNoZeroes != 0
	if err := h.write(binary.BigEndian.AppendUint32(nil, uint32(flags)), "clientflags field"); err != nil {
		return 0, err
	}
	fixed := flags&HandshakeFixedNewstyle != 0
	if h.cfg.StartTLS != nil {
		if !fixed {
			return 0, errNoTLS()
		}
		if err := h.startTLS(); err != nil {
			return 0, err
		}
	}
	if !fixed {
		return newstyle, nil
	}
	h.answers = true
	return fixedNewstyle, nil
}

func (h *clientHandshake) startTLS() error {
	h.answers = true
	ok, err := h.simpleOption(OptStartTLS, true)
	if err == nil && !ok {
		err = qerr.New("Server don't support STARTTLS option")
	}
	if err != nil {
		return err
	}
	h.answers = false
	conn, err := h.cfg.StartTLS(h.s.Conn)
	if err != nil {
		return err
	}
	h.s.Conn = conn
	return nil
}

// oldExport reads what an oldstyle server tells of its only export.
func (h *clientHandshake) oldExport() (err error) {
	if h.cfg.Export != "" {
		return qerr.New("Server does not support non-empty export names")
	}
	if h.s.Export.Size, err = h.readUint64("export length"); err != nil {
		return err
	}
	flags, err := h.readUint32("export flags")
	if err != nil {
		return err
	}
	if flags > 0xffff {
		return qerr.New("Unexpected export flags %xx", flags) // so the reference prints it
	}
	h.s.Export.Flags = TransmissionFlags(flags)
	return h.skip(reservedBlock, "reserved block")
}

// reservedBlock is the number of zeroes that follow an export's size and flags
// unless both sides do without.
const reservedBlock = 124

// exportName chooses the export by the one option that old servers know. A
// server that has no such export hangs up.
func (h *clientHandshake) exportName() (err error) {
	h.answers = false
	if err := h.sendOption(OptExportName, []byte(h.cfg.Export)); err != nil {
		return err
	}
	if h.s.Export.Size, err = h.readUint64("export length"); err != nil {
		return err
	}
	if err := h.read(h.buf[:2], "export flags"); err != nil {
		return err
	}
	h.s.Export.Flags = TransmissionFlags(binary.BigEndian.Uint16(h.buf[:]))
	if h.noZeroes {
		return nil
	}
	return h.skip(reservedBlock, "reserved block")
}

// chooseMode asks for the best mode first.
func (h *clientHandshake) chooseMode() error {
	for _, m := range []struct {
		mode   Mode
		option Option
	}{{Extended, OptExtendedHeaders}, {Structured, OptStructuredReply}} {
		if h.cfg.Mode < m.mode {
			continue
		}
		ok, err := h.simpleOption(m.option, false)
		if err != nil {
			return err
		}
		if ok {
			h.s.Mode = m.mode
			return nil
		}
	}
	return nil
}

// simpleOption asks for something that the server grants or not. If it is not
// granted the result is false, or an error if strict is set and the server
// knows the option.
func (h *clientHandshake) simpleOption(opt Option, strict bool) (bool, error) {
	if err := h.sendOption(opt, nil); err != nil {
		return false, err
	}
	r, ok, err := h.receive(opt, strict)
	if err != nil || !ok {
		return false, err
	}
	if r.length != 0 {
		return false, qerr.New("Option %d ('%v') response length is %d (it should be zero)", uint32(opt), opt, r.length)
	}
	if r.kind != RepAck {
		return false, qerr.New("Server answered option %d (%v) with unexpected reply %d (%v)", uint32(opt), opt, uint32(r.kind), r.kind)
	}
	return true, nil
}

// setMetaContext asks for the context of block status. A server that does not
// know it, or knows no contexts at all, is no failure.
func (h *clientHandshake) setMetaContext() error {
	name := h.cfg.MetaContext
	if h.s.Mode == Simple || name == "" {
		return nil
	}
	data := appendString(nil, h.cfg.Export)
	data = binary.BigEndian.AppendUint32(data, 1)
	if err := h.sendOption(OptSetMetaContext, appendString(data, name)); err != nil {
		return err
	}
	for {
		r, ok, err := h.receive(OptSetMetaContext, false)
		switch {
		case err != nil:
			return err
		case !ok:
			h.s.HasContext = false
			return nil
		case r.kind == RepAck && r.length != 0:
			return qerr.New("Unexpected length to ACK response")
		case r.kind == RepAck:
			return nil
		case r.kind != RepMetaContext:
			return errReply("Unexpected", r.kind, RepMetaContext)
		case h.s.HasContext:
			return qerr.New("Server answered with more than one context")
		}
		if err := h.takeContext(r.length); err != nil {
			return err
		}
	}
}

func (h *clientHandshake) takeContext(length uint32) (err error) {
	name := h.cfg.MetaContext
	if length <= 4 || length > MaxPayload {
		return qerr.New("Failed to negotiate meta context, server answered with unexpected length %d", length)
	}
	if h.s.ContextID, err = h.readUint32("context id"); err != nil {
		return err
	}
	got, err := h.readText(length-4, "context name")
	if err != nil {
		return err
	}
	if got != name {
		return qerr.New("Failed to negotiate meta context '%s', server answered with different context '%s'", name, got)
	}
	h.s.HasContext = true
	return nil
}

// enter chooses the export. Servers that do not know GO may list what they
// have, so that a wrong name can be reported before they hang up.
func (h *clientHandshake) enter() error {
	ok, err := h.goOption()
	if err != nil {
		return err
	}
	if ok {
		h.answers = false
		return nil
	}
	found, listed := false, false
	_, err = h.list(func(e Export) error {
		listed = true
		found = found || e.Name == h.cfg.Export
		return nil
	})
	if err != nil {
		return err
	}
	if listed && !found {
		return qerr.New("No export with name '%s' available", h.cfg.Export)
	}
	return h.exportName()
}

// goOption asks for the export and its block sizes; false: the server does not
// know the option.
func (h *clientHandshake) goOption() (bool, error) {
	data := appendString(nil, h.cfg.Export)
	data = binary.BigEndian.AppendUint16(data, 1)
	data = binary.BigEndian.AppendUint16(data, uint16(InfoBlockSize))
	if err := h.sendOption(OptGo, data); err != nil {
		return false, err
	}
	for {
		r, ok, err := h.receive(OptGo, true)
		switch {
		case err != nil || !ok:
			return false, err
		case r.kind == RepAck && r.length != 0:
			return false, qerr.New("server sent invalid NBD_REP_ACK")
		case r.kind == RepAck && h.s.Export.Flags == 0:
			return false, qerr.New("broken server omitted NBD_INFO_EXPORT")
		case r.kind == RepAck:
			return true, nil
		case r.kind != RepInfo:
			return false, errReply("unexpected", r.kind, RepInfo)
		case r.length < 2:
			return false, qerr.New("NBD_REP_INFO length %d is too short", r.length)
		}
		if err := h.takeInfo(r.length - 2); err != nil {
			return false, err
		}
	}
}

func (h *clientHandshake) takeInfo(length uint32) error {
	if err := h.read(h.buf[:2], "info type"); err != nil {
		return err
	}
	kind := InfoType(binary.BigEndian.Uint16(h.buf[:]))
	want := map[InfoType]uint32{InfoExport: 10, InfoBlockSize: 12}[kind]
	switch {
	case want == 0: // names and descriptions are for people
		return h.skip(length, "info payload")
	case length != want:
		return qerr.New("remaining export info len %d is unexpected size", length)
	case kind == InfoExport:
		return h.takeExport()
	}
	return h.takeBlockSizes()
}

func (h *clientHandshake) takeExport() (err error) {
	e := &h.s.Export
	if e.Size, err = h.readUint64("info size"); err != nil {
		return err
	}
	if e.MinBlock != 0 && e.Size%uint64(e.MinBlock) != 0 {
		return qerr.New("export size %d is not multiple of minimum block size %d", e.Size, e.MinBlock)
	}
	if err := h.read(h.buf[:2], "info flags"); err != nil {
		return err
	}
	e.Flags = TransmissionFlags(binary.BigEndian.Uint16(h.buf[:]))
	return nil
}

// takeBlockSizes checks what section "Block size constraints" demands. The
// largest block is rounded down to whole smallest ones.
func (h *clientHandshake) takeBlockSizes() (err error) {
	e := &h.s.Export
	if e.MinBlock, err = h.readUint32("info minimum block size"); err != nil {
		return err
	}
	if !powerOfTwo(e.MinBlock) {
		return qerr.New("server minimum block size %d is not a power of two", e.MinBlock)
	}
	if e.PreferredBlock, err = h.readUint32("info preferred block size"); err != nil {
		return err
	}
	if !powerOfTwo(e.PreferredBlock) || e.PreferredBlock < e.MinBlock {
		return qerr.New("server preferred block size %d is not valid", e.PreferredBlock)
	}
	if e.MaxBlock, err = h.readUint32("info maximum block size"); err != nil {
		return err
	}
	if e.MaxBlock < e.MinBlock {
		return qerr.New("server maximum block size %d is not valid", e.MaxBlock)
	}
	e.MaxBlock -= e.MaxBlock % e.MinBlock
	return nil
}

func powerOfTwo(n uint32) bool { return n != 0 && n&(n-1) == 0 }

// list calls found for each export of the server; false: the server does not
// tell.
func (h *clientHandshake) list(found func(Export) error) (bool, error) {
	if err := h.sendOption(OptList, nil); err != nil {
		return false, err
	}
	for {
		r, ok, err := h.receive(OptList, true)
		switch {
		case err != nil || !ok:
			return false, err
		case r.kind == RepAck && r.length != 0:
			return false, qerr.New("length too long for option end")
		case r.kind == RepAck:
			return true, nil
		case r.kind != RepServer:
			return false, errReply("Unexpected", r.kind, RepServer)
		}
		e, err := h.takeListed(r.length)
		if err != nil {
			return false, err
		}
		if err := found(e); err != nil {
			return false, err
		}
	}
}

func (h *clientHandshake) takeListed(length uint32) (e Export, err error) {
	if length < 4 || length > MaxPayload {
		return e, qerr.New("incorrect option length %d", length)
	}
	n, err := h.readUint32("option name length")
	if err != nil {
		return e, err
	}
	if n > MaxString || n > length-4 {
		return e, qerr.New("incorrect name length in server's list response")
	}
	if e.Name, err = h.readText(n, "export name"); err != nil {
		return e, err
	}
	e.Description, err = h.readText(length-4-n, "export description")
	return e, err
}

// optionReply is the header of a reply.
type optionReply struct {
	kind   OptionReply
	length uint32
}

func errReply(unexpected string, got, want OptionReply) error {
	return qerr.New("%s reply type %d (%v), expected %d (%v)", unexpected, uint32(got), got, uint32(want), want)
}

// receive reads the header of the next reply to opt, or all of it if it is an
// error. The result is false if the server does not know the option, or if it
// refuses and strict is not set: the option was a mere wish.
func (h *clientHandshake) receive(opt Option, strict bool) (r optionReply, ok bool, err error) {
	if err := h.read(h.buf[:20], "option reply"); err != nil {
		return r, false, err
	}
	if binary.BigEndian.Uint64(h.buf[:]) != magicOptReply {
		return r, false, qerr.New("Unexpected option reply magic")
	}
	if got := Option(binary.BigEndian.Uint32(h.buf[8:])); got != opt {
		return r, false, qerr.New("Unexpected option type %d (%v), expected %d (%v)", uint32(got), got, uint32(opt), opt)
	}
	r.kind = OptionReply(binary.BigEndian.Uint32(h.buf[12:]))
	r.length = binary.BigEndian.Uint32(h.buf[16:])
	if !r.kind.IsError() {
		return r, true, nil
	}
	if r.length > MaxPayload {
		return r, false, qerr.New("server error %d (%v) message is too long", uint32(r.kind), r.kind)
	}
	message, err := h.readText(r.length, "option error "+describe(r.kind)+" message")
	if err != nil || !strict || r.kind == RepErrUnsupported {
		return r, false, err
	}
	return r, false, refusal(opt, r.kind, message)
}

func describe(r OptionReply) string { return qerr.New("%d (%v)", uint32(r), r).Desc }

// refusal words a server's error. Its own message is only for command lines.
func refusal(opt Option, r OptionReply, message string) error {
	hint := ""
	if message != "" {
		hint = "server reported: " + message + "\n"
	}
	about := func(format string) error { return qerr.New(format, uint32(opt), opt).WithHint(hint) }
	switch r {
	case RepErrPolicy:
		return about("Denied by server for option %d (%v)")
	case RepErrInvalid:
		return about("Invalid parameters for option %d (%v)")
	case RepErrPlatform:
		return about("Server lacks support for option %d (%v)")
	case RepErrTLSRequired:
		hint = "Did you forget a valid tls-creds?\n" + hint
		return about("TLS negotiation required before option %d (%v)")
	case RepErrUnknown:
		return qerr.New("Requested export not available").WithHint(hint)
	case RepErrShutdown:
		return about("Server shutting down before option %d (%v)")
	case RepErrBlockSizeRequired:
		return about("Server requires INFO_BLOCK_SIZE for option %d (%v)")
	}
	return about("Unknown error code when asking for option %d (%v)")
}

func (h *clientHandshake) appendOption(dst []byte, opt Option, length int) []byte {
	dst = binary.BigEndian.AppendUint64(dst, magicOption)
	dst = binary.BigEndian.AppendUint32(dst, uint32(opt))
	return binary.BigEndian.AppendUint32(dst, uint32(length))
}

func (h *clientHandshake) sendOption(opt Option, data []byte) error {
	return h.write(append(h.appendOption(nil, opt, len(data)), data...), "option request header")
}

func (h *clientHandshake) write(b []byte, what string) error {
	if _, err := h.s.Conn.Write(b); err != nil {
		h.answers = false
		return qerr.Prepend(SocketError(err, "write to"), "Failed to send %s: ", what)
	}
	return nil
}

func (h *clientHandshake) read(b []byte, what string) error {
	_, err := io.ReadFull(h.s.Conn, b)
	return h.readError(err, what)
}

func (h *clientHandshake) readError(err error, what string) error {
	if err == nil {
		return nil
	}
	h.answers = false
	return qerr.Prepend(SocketError(err, "read from"), "Failed to read %s: ", what)
}

func (h *clientHandshake) readUint32(what string) (uint32, error) {
	err := h.read(h.buf[:4], what)
	return binary.BigEndian.Uint32(h.buf[:]), err
}

func (h *clientHandshake) readUint64(what string) (uint64, error) {
	err := h.read(h.buf[:8], what)
	return binary.BigEndian.Uint64(h.buf[:]), err
}

// readText reads a text of which no more than [MaxString] bytes are kept.
func (h *clientHandshake) readText(length uint32, what string) (string, error) {
	b := make([]byte, min(length, MaxString))
	if err := h.read(b, what); err != nil {
		return "", err
	}
	return string(b), h.skip(length-uint32(len(b)), what)
}

func (h *clientHandshake) skip(length uint32, what string) error {
	_, err := io.CopyN(io.Discard, h.s.Conn, int64(length))
	return h.readError(err, what)
}
