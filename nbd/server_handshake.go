package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
)

// Offer is an export as a server's handshake sees it.
type Offer interface {
	// Describe tells what the export is at the moment. Flags are those that
	// do not depend on the mode.
	Describe() Export
	// MetaContexts lists the contexts of which block status can be asked.
	MetaContexts() []MetaContext
	// Enter makes the connection a user of the export, or returns false if
	// the export is about to vanish.
	Enter() bool
}

// MetaContext is a kind of block status; its ID is how replies call it.
type MetaContext struct {
	ID   uint32
	Name string
}

// ServerConfig is what a server brings to a handshake.
type ServerConfig struct {
	// Offers lists the exports, the oldest first.
	Offers func() []Offer
	// Find returns the export of that name, nil if there is none.
	Find func(name string) Offer
	// StartTLS makes a connection secret. With it, no client gets anywhere
	// without; nil: there is no TLS.
	StartTLS func(net.Conn) (net.Conn, error)
}

// Session is what a handshake has led to.
type Session struct {
	// Conn is the connection, with TLS if that was started.
	Conn net.Conn
	Mode Mode
	// Offer is the export that the client has entered, nil if it did not get
	// that far. After an error it may be set as well.
	Offer Offer
	// MetaContexts are those that the client wants to ask about.
	MetaContexts []MetaContext
}

// ErrAborted is returned when the client ends the handshake in due form, or
// has never said anything.
var ErrAborted = errors.New("the client aborted the handshake")

// ServerHandshake leads the server's side of the handshake (section
// "Fixed newstyle negotiation"). The caller limits its time by the deadline of
// conn, and closes the session's connection in any case.
func ServerHandshake(conn net.Conn, cfg ServerConfig) (*Session, error) {
	h := &serverHandshake{cfg: cfg, s: &Session{Conn: conn}}
	if err := h.greet(); err != nil {
		return h.s, err
	}
	for h.s.Offer == nil {
		if err := h.serveOption(); err != nil {
			return h.s, err
		}
	}
	return h.s, nil
}

type serverHandshake struct {
	cfg      ServerConfig
	s        *Session
	fixed    bool // the client understands errors
	noZeroes bool
	secret   bool // TLS was started
	// metaExport is the export for which contexts were set; they count for
	// no other.
	metaExport string
	out        []byte // replies to the option under way
}

func (h *serverHandshake) greet() error {
	b := binary.BigEndian.AppendUint64(nil, magicInit)
	b = binary.BigEndian.AppendUint64(b, magicOption)
	b = binary.BigEndian.AppendUint16(b, uint16(HandshakeFixedNewstyle|HandshakeNoZeroes))
	if h.write(b) != nil {
		return ErrAborted
	}
	var answer [4]byte
	if _, err := io.ReadFull(h.s.Conn, answer[:]); err != nil {
		return ErrAborted
	}
	flags := binary.BigEndian.Uint32(answer[:])
	if unknown := flags &^ uint32(HandshakeFixedNewstyle|HandshakeNoZeroes); unknown != 0 {
		return complain("Unknown client flags %#x received", unknown)
	}
	h.fixed = flags&uint32(HandshakeFixedNewstyle) != 0
	h.noZeroes = flags&uint32(HandshakeNoZeroes) != 0
	return nil
}

// serveOption reads one option and answers it.
func (h *serverHandshake) serveOption() error {
	var head [16]byte
	if n, err := io.ReadFull(h.s.Conn, head[:]); err != nil {
		what := []string{"opts magic", "opts magic", "option", "option length"}[n/4]
		return complain("Failed to read %s: %w", what, readError(err))
	}
	if binary.BigEndian.Uint64(head[:]) != magicOption {
		return ErrMagic
	}
	opt := Option(binary.BigEndian.Uint32(head[8:]))
	length := binary.BigEndian.Uint32(head[12:])
	if length > MaxPayload {
		return fmt.Errorf("len (%d) is larger than max len (%d)", length, MaxPayload)
	}
	h.out = h.out[:0]
	d := &decoder{in: h.s.Conn, left: length}
	if err := h.answer(opt, d); err != nil {
		return err
	}
	return h.flush()
}

func (h *serverHandshake) answer(opt Option, d *decoder) error {
	needTLS := h.cfg.StartTLS != nil && !h.secret
	switch {
	case opt == OptExportName && needTLS:
		// This option has no way to say no but to hang up.
		return complain("Option %#x not permitted before TLS", uint32(opt))
	case opt == OptExportName:
		return h.exportName(d)
	case !h.fixed:
		return complain("Unsupported option %d (%v)", uint32(opt), opt)
	case opt == OptAbort:
		h.ack(opt)
		_ = h.flush() // the client need not wait for it
		return ErrAborted
	case needTLS && opt != OptStartTLS:
		h.refuse(opt, RepErrTLSRequired, "Option %#x not permitted before TLS", uint32(opt))
		return d.drop()
	}
	switch opt {
	case OptList:
		return h.list(d)
	case OptStartTLS:
		return h.startTLS(d)
	case OptInfo, OptGo:
		return h.info(opt, d)
	case OptStructuredReply, OptExtendedHeaders:
		return h.raiseMode(opt, d)
	case OptListMetaContext, OptSetMetaContext:
		return h.metaContexts(opt, d)
	}
	h.refuse(opt, RepErrUnsupported, "Unsupported option %d (%v)", uint32(opt), opt)
	return d.drop()
}

// readError puts the end of a connection into the reference's words, also where the
// server itself has closed it.
func readError(err error) error {
	if errors.Is(err, net.ErrClosed) {
		err = io.EOF
	}
	return SocketError(err, "read from")
}

// The replies are gathered and leave together.

func (h *serverHandshake) reply(opt Option, typ OptionReply, data ...[]byte) {
	length := 0
	for _, d := range data {
		length += len(d)
	}
	h.out = binary.BigEndian.AppendUint64(h.out, magicOptReply)
	h.out = binary.BigEndian.AppendUint32(h.out, uint32(opt))
	h.out = binary.BigEndian.AppendUint32(h.out, uint32(typ))
	h.out = binary.BigEndian.AppendUint32(h.out, uint32(length))
	for _, d := range data {
		h.out = append(h.out, d...)
	}
}

func (h *serverHandshake) ack(opt Option) { h.reply(opt, RepAck) }

func (h *serverHandshake) refuse(opt Option, why OptionReply, format string, args ...any) {
	h.reply(opt, why, fmt.Appendf(nil, format, args...))
}

func (h *serverHandshake) flush() error {
	if len(h.out) == 0 {
		return nil
	}
	return h.write(h.out)
}

func (h *serverHandshake) write(b []byte) error {
	if _, err := h.s.Conn.Write(b); err != nil {
		return SocketError(err, "write to")
	}
	return nil
}

// refuseData refuses data of an option that has none.
func (h *serverHandshake) refuseData(opt Option, d *decoder) error {
	h.refuse(opt, RepErrInvalid, "option '%v' has unexpected length", opt)
	return d.drop()
}

// refuseName answers a client that named an export which is not there.
func (h *serverHandshake) refuseName(opt Option, name string) {
	// A name that nobody can have chosen is not sent back whole.
	const shown = 80
	if len(name) > shown {
		name = name[:shown] + "..."
	}
	h.refuse(opt, RepErrUnknown, "export '%s' not present", name)
}

// exportName is the option of old: no errors, no information.
func (h *serverHandshake) exportName(d *decoder) error {
	if h.s.Mode == Extended {
		return complain("Extended headers already negotiated")
	}
	if d.left > MaxString {
		return complain("Bad length received")
	}
	b := d.bytes(d.left)
	if d.err != nil {
		return complain("Failed to read export name: %w", d.err)
	}
	name, _, _ := strings.Cut(string(b), "\x00")
	o := h.cfg.Find(name)
	if o == nil || !h.enter(name, o) {
		return errors.New("export not found")
	}
	e := o.Describe()
	b = binary.BigEndian.AppendUint64(nil, e.Size)
	b = binary.BigEndian.AppendUint16(b, uint16(h.flagsOf(e)))
	if !h.noZeroes {
		b = append(b, make([]byte, 124)...)
	}
	return h.write(b)
}

func (h *serverHandshake) enter(name string, o Offer) bool {
	if !o.Enter() {
		return false
	}
	h.s.Offer = o
	if name != h.metaExport {
		h.s.MetaContexts = nil
	}
	return true
}

// flagsOf adds what only some modes can.
func (h *serverHandshake) flagsOf(e Export) TransmissionFlags {
	flags := e.Flags | FlagHasFlags
	if h.s.Mode >= Structured {
		flags |= FlagSendDF
	}
	// Who has entered an export and chosen no context cannot ask for any.
	if h.s.Mode >= Extended && (h.s.Offer == nil || len(h.s.MetaContexts) > 0) {
		flags |= FlagBlockStatusPayload
	}
	return flags
}

// list names the exports; descriptions follow names, which the protocol
// leaves to servers.
func (h *serverHandshake) list(d *decoder) error {
	if d.left > 0 {
		return h.refuseData(OptList, d)
	}
	for _, o := range h.cfg.Offers() {
		e := o.Describe()
		h.reply(OptList, RepServer, appendString(nil, e.Name), []byte(e.Description))
	}
	h.ack(OptList)
	return nil
}

// startTLS begins anew behind the TLS handshake: what was agreed before could
// have been an attacker's.
func (h *serverHandshake) startTLS(d *decoder) error {
	switch {
	case d.left > 0:
		return h.refuseData(OptStartTLS, d)
	case h.secret:
		h.refuse(OptStartTLS, RepErrInvalid, "TLS already enabled")
		return nil
	case h.cfg.StartTLS == nil:
		h.refuse(OptStartTLS, RepErrPolicy, "TLS not configured")
		return nil
	}
	h.ack(OptStartTLS)
	if err := h.flush(); err != nil {
		return err
	}
	h.out = h.out[:0]
	conn, err := h.cfg.StartTLS(h.s.Conn)
	if err != nil {
		return err
	}
	h.secret = true
	h.s.Conn, h.s.Mode, h.s.MetaContexts, h.metaExport = conn, Simple, nil, ""
	return nil
}

// info answers INFO, and GO, which enters the export besides.
func (h *serverHandshake) info(opt Option, d *decoder) error {
	name := d.string()
	requests := decodeInfoTypes(d)
	if d.failed() || d.left > 0 {
		return h.refuseMistake(opt, d)
	}
	o := h.cfg.Find(name)
	if o == nil {
		h.refuseName(opt, name)
		return nil
	}
	if opt == OptGo && !h.enter(name, o) {
		h.refuseName(opt, name)
		return nil
	}
	h.describe(opt, o.Describe(), requests)
	h.ack(opt)
	return nil
}

func decodeInfoTypes(d *decoder) []InfoType {
	types := make([]InfoType, d.uint16())
	b := d.bytes(2 * uint32(len(types)))
	if d.failed() {
		return nil
	}
	for i := range types {
		types[i] = InfoType(binary.BigEndian.Uint16(b[2*i:]))
	}
	return types
}

// describe sends what the client asked to know, and what it should.
func (h *serverHandshake) describe(opt Option, e Export, requests []InfoType) {
	if slices.Contains(requests, InfoName) {
		h.reply(opt, RepInfo, appendInfo(InfoName), []byte(e.Name))
	}
	minBlock := uint32(1)
	if slices.Contains(requests, InfoBlockSize) {
		// Who asks will keep to it; others need not know.
		minBlock = e.MinBlock
	}
	if e.Description != "" {
		h.reply(opt, RepInfo, appendInfo(InfoDescription), []byte(e.Description))
	}
	sizes := appendInfo(InfoBlockSize)
	sizes = binary.BigEndian.AppendUint32(sizes, minBlock)
	sizes = binary.BigEndian.AppendUint32(sizes, e.PreferredBlock)
	sizes = binary.BigEndian.AppendUint32(sizes, e.MaxBlock)
	h.reply(opt, RepInfo, sizes)
	export := appendInfo(InfoExport)
	export = binary.BigEndian.AppendUint64(export, e.Size)
	export = binary.BigEndian.AppendUint16(export, uint16(h.flagsOf(e)))
	h.reply(opt, RepInfo, export)
}

func appendInfo(t InfoType) []byte { return binary.BigEndian.AppendUint16(nil, uint16(t)) }

func appendString(dst []byte, s string) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(s)))
	return append(dst, s...)
}

// refuseMistake answers an option whose data is not what it must be.
func (h *serverHandshake) refuseMistake(opt Option, d *decoder) error {
	switch {
	case d.tooLong > 0:
		h.refuse(opt, RepErrInvalid, "Invalid name length: %d", d.tooLong)
	case d.nul:
		h.refuse(opt, RepErrInvalid, "Unexpected embedded NUL in option %v", opt)
	case d.short:
		h.refuse(opt, RepErrInvalid, "Inconsistent lengths in option %v", opt)
	default:
		h.refuse(opt, RepErrInvalid, "option '%v' has unexpected length", opt)
	}
	return d.drop()
}

// raiseMode agrees on structured replies or extended headers.
func (h *serverHandshake) raiseMode(opt Option, d *decoder) error {
	mode := Structured
	if opt == OptExtendedHeaders {
		mode = Extended
	}
	switch {
	case d.left > 0:
		return h.refuseData(opt, d)
	case h.s.Mode == Extended && mode == Structured:
		h.refuse(opt, RepErrExtHeaderRequired, "extended headers already negotiated")
	case h.s.Mode == mode:
		h.refuse(opt, RepErrInvalid, "%v already negotiated", opt)
	default:
		h.s.Mode = mode
		h.ack(opt)
	}
	return nil
}
