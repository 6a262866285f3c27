package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
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
	// MinBlock is what offsets and lengths of the client's requests must be
	// multiples of, in bytes: 1 unless the client asked.
	MinBlock uint32
}

// ErrAborted is returned when the client ends the handshake in due form.
var ErrAborted = errors.New("the client aborted the handshake")

// ServerHandshake leads the server's side of the handshake (section
// "Fixed newstyle negotiation"). The caller limits its time by the deadline of
// conn, and closes the session's connection in any case.
func ServerHandshake(conn net.Conn, cfg ServerConfig) (*Session, error) {
	h := &serverHandshake{cfg: cfg, s: &Session{Conn: conn, MinBlock: 1}}
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
	if _, err := h.s.Conn.Write(b); err != nil {
		return err
	}
	var answer [4]byte
	if _, err := io.ReadFull(h.s.Conn, answer[:]); err != nil {
		return err
	}
	flags := binary.BigEndian.Uint32(answer[:])
	if unknown := flags &^ uint32(HandshakeFixedNewstyle|HandshakeNoZeroes); unknown != 0 {
		//lint:ignore ST1005 These are the reference's words.
		return fmt.Errorf("Unknown client flags %#x received", unknown)
	}
	h.fixed = flags&uint32(HandshakeFixedNewstyle) != 0
	h.noZeroes = flags&uint32(HandshakeNoZeroes) != 0
	return nil
}

// serveOption reads one option and answers it.
func (h *serverHandshake) serveOption() error {
	var head [16]byte
	if _, err := io.ReadFull(h.s.Conn, head[:]); err != nil {
		return err
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
	if length > MaxOption {
		// Whoever sends so much can wait until it is gone.
		if _, err := io.CopyN(io.Discard, h.s.Conn, int64(length)); err != nil {
			return err
		}
		h.refuse(opt, RepErrTooBig, "option '%v' is too long", opt)
		return h.flush()
	}
	data := make([]byte, length)
	if _, err := io.ReadFull(h.s.Conn, data); err != nil {
		return err
	}
	return h.answer(opt, data)
}

func (h *serverHandshake) answer(opt Option, data []byte) error {
	needTLS := h.cfg.StartTLS != nil && !h.secret
	switch {
	case opt == OptAbort:
		h.ack(opt)
		_ = h.flush() // the client need not wait for it
		return ErrAborted
	case opt == OptExportName && needTLS:
		// This option has no way to say no but to hang up.
		return fmt.Errorf("Option %#x not permitted before TLS", uint32(opt))
	case opt == OptExportName:
		return h.exportName(string(data))
	case !h.fixed:
		//lint:ignore ST1005 These are the reference's words.
		return fmt.Errorf("Unsupported option %d (%v)", uint32(opt), opt)
	case needTLS && opt != OptStartTLS:
		h.refuse(opt, RepErrTLSRequired, "Option %#x not permitted before TLS", uint32(opt))
		return h.flush()
	}
	switch opt {
	case OptList:
		h.list(data)
	case OptStartTLS:
		return h.startTLS(data)
	case OptInfo, OptGo:
		return h.info(opt, data)
	case OptStructuredReply, OptExtendedHeaders:
		h.raiseMode(opt, data)
	case OptListMetaContext, OptSetMetaContext:
		h.metaContexts(opt, data)
	default:
		h.refuse(opt, RepErrUnsupported, "Unsupported option %d (%v)", uint32(opt), opt)
	}
	return h.flush()
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
	_, err := h.s.Conn.Write(h.out)
	return err
}

// refuseData refuses data of an option that has none.
func (h *serverHandshake) refuseData(opt Option, data []byte) bool {
	if len(data) > 0 {
		h.refuse(opt, RepErrInvalid, "option '%v' has unexpected length", opt)
	}
	return len(data) > 0
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
func (h *serverHandshake) exportName(name string) error {
	if len(name) > MaxString {
		return fmt.Errorf("an export name of %d bytes", len(name))
	}
	o := h.cfg.Find(name)
	if o == nil || !h.enter(name, o) {
		return errors.New("export not found")
	}
	e := o.Describe()
	b := binary.BigEndian.AppendUint64(nil, e.Size)
	b = binary.BigEndian.AppendUint16(b, uint16(h.flagsOf(e)))
	if !h.noZeroes {
		b = append(b, make([]byte, 124)...)
	}
	_, err := h.s.Conn.Write(b)
	return err
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
	if h.s.Mode >= Extended {
		flags |= FlagBlockStatusPayload
	}
	return flags
}

// list names the exports; descriptions follow names, which the protocol
// leaves to servers.
func (h *serverHandshake) list(data []byte) {
	if h.refuseData(OptList, data) {
		return
	}
	for _, o := range h.cfg.Offers() {
		e := o.Describe()
		h.reply(OptList, RepServer, appendString(nil, e.Name), []byte(e.Description))
	}
	h.ack(OptList)
}

// startTLS begins anew behind the TLS handshake: what was agreed before could
// have been an attacker's.
func (h *serverHandshake) startTLS(data []byte) error {
	switch {
	case len(data) > 0:
		h.refuseData(OptStartTLS, data)
		return h.flush()
	case h.secret:
		h.refuse(OptStartTLS, RepErrInvalid, "TLS already enabled")
		return h.flush()
	case h.cfg.StartTLS == nil:
		h.refuse(OptStartTLS, RepErrPolicy, "TLS not configured")
		return h.flush()
	}
	h.ack(OptStartTLS)
	if err := h.flush(); err != nil {
		return err
	}
	conn, err := h.cfg.StartTLS(h.s.Conn)
	if err != nil {
		return err
	}
	h.secret = true
	h.s.Conn, h.s.Mode, h.s.MetaContexts, h.metaExport = conn, Simple, nil, ""
	return nil
}

// info answers INFO, and GO, which enters the export besides.
func (h *serverHandshake) info(opt Option, data []byte) error {
	d := decoder{b: data}
	name := d.string()
	requests := make([]InfoType, d.uint16())
	for i := range requests {
		requests[i] = InfoType(d.uint16())
	}
	if !h.decoded(opt, &d) {
		return h.flush()
	}
	o := h.cfg.Find(name)
	if o == nil {
		h.refuseName(opt, name)
		return h.flush()
	}
	h.describe(opt, o.Describe(), requests)
	if opt == OptGo && !h.enter(name, o) {
		h.out = h.out[:0]
		h.refuseName(opt, name)
		return h.flush()
	}
	h.ack(opt)
	return h.flush()
}

// describe sends what the client asked to know, and what it should.
func (h *serverHandshake) describe(opt Option, e Export, requests []InfoType) {
	if slices.Contains(requests, InfoName) {
		h.reply(opt, RepInfo, appendInfo(InfoName), []byte(e.Name))
	}
	minBlock := uint32(1)
	if slices.Contains(requests, InfoBlockSize) {
		// Who asks will keep to it; others get unaligned requests served.
		minBlock = e.MinBlock
	}
	if opt == OptGo {
		h.s.MinBlock = minBlock
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

// decoded checks that an option's data was as long as it said.
func (h *serverHandshake) decoded(opt Option, d *decoder) bool {
	switch {
	case d.tooLong > 0:
		h.refuse(opt, RepErrInvalid, "Invalid name length: %d", d.tooLong)
	case d.short:
		h.refuse(opt, RepErrInvalid, "Inconsistent lengths in option %v", opt)
	case len(d.b) > 0:
		h.refuse(opt, RepErrInvalid, "option '%v' has unexpected length", opt)
	default:
		return true
	}
	return false
}

// raiseMode agrees on structured replies or extended headers.
func (h *serverHandshake) raiseMode(opt Option, data []byte) {
	mode := Structured
	if opt == OptExtendedHeaders {
		mode = Extended
	}
	switch {
	case h.refuseData(opt, data):
	case h.s.Mode == Extended && mode == Structured:
		h.refuse(opt, RepErrExtHeaderRequired, "extended headers already negotiated")
	case h.s.Mode == mode:
		h.refuse(opt, RepErrInvalid, "%v already negotiated", opt)
	default:
		h.s.Mode = mode
		h.ack(opt)
	}
}
