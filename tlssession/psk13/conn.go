package psk13

import (
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// Types of records.
const (
	recordChangeCipherSpec = 20
	recordAlert            = 21
	recordHandshake        = 22
	recordData             = 23
)

const (
	headerSize  = 5
	maxPlain    = 1 << 14
	maxCipher   = maxPlain + 256
	maxMessage  = 1 << 16 // of a handshake
	maxUseless  = 16      // records in a row that bring nothing
	batch       = 4       // records in one write
	closeWait   = 5 * time.Second
	updateAfter = 1 << 24 // records under one key (RFC 8446, section 5.5)
)

// Conn is an encrypted connection.
type Conn struct {
	conn     net.Conn
	isClient bool
	identity string

	in struct {
		sync.Mutex
		buf        []byte // what came
		start      int    // of the record that comes next
		protection *protection
		plain      []byte // application data of the current record; lies in buf
		messages   []byte // of handshakes, not yet complete
		useless    int
		err        error // for ever
	}
	out struct {
		sync.Mutex
		buf        []byte
		protection *protection
		err        error
		closed     bool // close_notify was sent
	}
	// compatible tells that change_cipher_spec may still come.
	compatible bool
}

// Identity is the name of the key.
func (c *Conn) Identity() string { return c.identity }

// Read implements net.Conn. The end is io.EOF when the other side said
// goodbye, and io.ErrUnexpectedEOF when it is just gone.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.in.Lock()
	defer c.in.Unlock()
	for len(c.in.plain) == 0 {
		if err := c.readData(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.in.plain)
	c.in.plain = c.in.plain[n:]
	return n, nil
}

// readData reads one record after the handshake.
func (c *Conn) readData() error {
	typ, body, err := c.readRecord()
	if err != nil {
		return err
	}
	if typ == recordData {
		if len(c.in.messages) > 0 {
			return c.breakOff(fail(UnexpectedMessage, "data within a handshake message"))
		}
		c.in.plain = body
		return nil
	}
	if err := c.addMessages(body); err != nil {
		return err
	}
	for {
		msg := c.takeMessage()
		if msg == nil {
			return nil
		}
		if err := c.postHandshake(msg); err != nil {
			return c.breakOff(err)
		}
	}
}

// postHandshake deals with what may come later: tickets, which are of no use,
// and new keys.
func (c *Conn) postHandshake(msg []byte) error {
	if err := c.countUseless(); err != nil {
		return err
	}
	switch {
	case msg[0] == typeNewSessionTicket && c.isClient:
		return nil
	case msg[0] == typeKeyUpdate:
		if len(msg) != 5 || msg[4] > 1 {
			return fail(DecodeError, "a KeyUpdate cannot be read")
		}
		if len(c.in.messages) > 0 {
			return fail(UnexpectedMessage, "something follows a KeyUpdate in its record")
		}
		c.in.protection.update()
		if msg[4] == 1 {
			return c.updateKey()
		}
		return nil
	}
	return fail(UnexpectedMessage, "message %d after the handshake", msg[0])
}

// updateKey changes the keys of what is sent.
func (c *Conn) updateKey() error {
	c.out.Lock()
	defer c.out.Unlock()
	if c.out.err != nil || c.out.closed {
		return nil // nothing will be sent any more
	}
	return c.sendKeyUpdate()
}

func (c *Conn) sendKeyUpdate() error {
	err := c.send(recordHandshake, []byte{typeKeyUpdate, 0, 0, 1, 0})
	c.out.protection.update()
	return err
}

// readRecord reads and decrypts a record that has a meaning here: data or
// handshake. Its body is valid until the next call. Errors of the connection
// that pass, like deadlines, do not harm it.
func (c *Conn) readRecord() (typ uint8, body []byte, err error) {
	if c.in.err != nil {
		return 0, nil, c.in.err
	}
	for {
		typ, body, err := c.nextRecord()
		if err == nil {
			var done bool
			if done, err = c.judge(typ, body); done {
				return typ, body, nil
			}
		}
		if err != nil {
			return 0, nil, c.breakOff(err)
		}
	}
}

// breakOff remembers an error that is for ever and tells the other side.
func (c *Conn) breakOff(err error) error {
	var mine *Error
	if errors.As(err, &mine) {
		c.in.err = err
		c.alert(mine.Alert)
		return err
	}
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		c.in.err = err
	}
	return err
}

// judge tells whether a record is for the caller. Others are dealt with here.
func (c *Conn) judge(typ uint8, body []byte) (bool, error) {
	switch typ {
	case recordAlert:
		return false, c.judgeAlert(body)
	case recordHandshake:
		if len(body) == 0 {
			return false, fail(UnexpectedMessage, "an empty handshake record")
		}
	case recordData:
		if c.in.protection == nil {
			return false, fail(UnexpectedMessage, "data before the handshake")
		}
		if len(body) == 0 {
			return false, c.countUseless()
		}
		c.in.useless = 0
	default:
		return false, fail(UnexpectedMessage, "a record of type %d", typ)
	}
	return true, nil
}

func (c *Conn) judgeAlert(body []byte) error {
	switch {
	case len(body) != 2:
		return fail(DecodeError, "an alert cannot be read")
	case Alert(body[1]) == CloseNotify:
		return io.EOF
	case Alert(body[1]) == UserCanceled:
		return c.countUseless()
	}
	return RemoteError(body[1])
}

// countUseless keeps the other side from occupying us for ever.
func (c *Conn) countUseless() error {
	if c.in.useless++; c.in.useless > maxUseless {
		return fail(UnexpectedMessage, "too many records without content")
	}
	return nil
}

// nextRecord reads and decrypts one record.
func (c *Conn) nextRecord() (typ uint8, body []byte, err error) {
	for {
		header, err := c.peek(headerSize)
		if err != nil {
			return 0, nil, err
		}
		typ, length := header[0], int(binary.BigEndian.Uint16(header[3:]))
		if header[1] != 3 {
			return 0, nil, fail(ProtocolVersion, "this is not TLS")
		}
		encrypted := c.in.protection != nil && typ == recordData
		if length > maxPlain && !encrypted || length > maxCipher {
			return 0, nil, fail(RecordOverflow, "a record of %d bytes", length)
		}
		record, err := c.peek(headerSize + length)
		if err != nil {
			return 0, nil, err
		}
		c.in.start += len(record)
		switch {
		case encrypted:
			return c.in.protection.open(record)
		case typ == recordChangeCipherSpec && c.compatible && length == 1 && record[headerSize] == 1:
			if err := c.countUseless(); err != nil {
				return 0, nil, err
			}
		case c.in.protection != nil:
			return 0, nil, fail(UnexpectedMessage, "a record of type %d in the clear", typ)
		default:
			return typ, record[headerSize:], nil
		}
	}
}

// peek returns the first n bytes of the next record, and reads as many more as
// it takes.
func (c *Conn) peek(n int) ([]byte, error) {
	in := &c.in
	if cap(in.buf) == 0 {
		in.buf = make([]byte, 0, batch*(headerSize+maxCipher))
	}
	if in.start == len(in.buf) || in.start+n > cap(in.buf) {
		in.buf = in.buf[:copy(in.buf, in.buf[in.start:])]
		in.start = 0
	}
	for len(in.buf) < in.start+n {
		got, err := c.conn.Read(in.buf[len(in.buf):cap(in.buf)])
		in.buf = in.buf[:len(in.buf)+got]
		if len(in.buf) >= in.start+n {
			break
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
	}
	return in.buf[in.start : in.start+n : in.start+n], nil
}

// open decrypts a record in its place.
func (p *protection) open(record []byte) (typ uint8, body []byte, err error) {
	plain, err := p.aead.Open(record[headerSize:headerSize], p.nonce(), record[headerSize:], record[:headerSize])
	if err != nil {
		return 0, nil, fail(BadRecordMAC, "a record was tampered with")
	}
	for i := len(plain) - 1; i >= 0; i-- {
		if plain[i] == 0 {
			continue
		}
		if i > maxPlain {
			return 0, nil, fail(RecordOverflow, "a record holds %d bytes", i)
		}
		return plain[i], plain[:i], nil
	}
	return 0, nil, fail(UnexpectedMessage, "a record of padding only")
}

// addMessages takes up a piece of handshake messages.
func (c *Conn) addMessages(body []byte) error {
	c.in.messages = append(c.in.messages, body...)
	if len(c.in.messages) > 2*maxMessage {
		return c.breakOff(errTooLong)
	}
	if m := c.in.messages; len(m) >= 4 && messageSize(m) > maxMessage {
		return c.breakOff(errTooLong)
	}
	return nil
}

var errTooLong = &Error{IllegalParameter, "a handshake message is too long"}

func messageSize(m []byte) int { return 4 + (int(m[1])<<16 | int(m[2])<<8 | int(m[3])) }

// takeMessage returns the next complete message, nil if there is none. It is
// the caller's.
func (c *Conn) takeMessage() []byte {
	m := c.in.messages
	if len(m) < 4 || len(m) < messageSize(m) {
		return nil
	}
	n := messageSize(m)
	c.in.messages = m[n:]
	if len(c.in.messages) == 0 {
		c.in.messages = nil
	}
	return m[:n:n]
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	c.out.Lock()
	defer c.out.Unlock()
	done := 0
	for done < len(p) {
		if c.out.closed && c.out.err == nil {
			return done, net.ErrClosed
		}
		if c.out.protection.seq >= updateAfter {
			if err := c.sendKeyUpdate(); err != nil {
				return done, err
			}
		}
		n := min(len(p)-done, batch*maxPlain)
		if err := c.send(recordData, p[done:done+n]); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// send writes a message of any length in records. An error is for ever: nobody
// knows how much has gone out.
func (c *Conn) send(typ uint8, body []byte) error {
	if c.out.err != nil {
		return c.out.err
	}
	c.out.buf = c.out.buf[:0]
	for first := true; first || len(body) > 0; first = false {
		n := min(len(body), maxPlain)
		c.out.buf = c.seal(c.out.buf, typ, body[:n])
		body = body[n:]
	}
	_, c.out.err = c.conn.Write(c.out.buf)
	return c.out.err
}

// seal appends a record.
func (c *Conn) seal(dst []byte, typ uint8, body []byte) []byte {
	p := c.out.protection
	if p == nil || typ == recordChangeCipherSpec {
		dst = append(dst, typ, 3, 3, byte(len(body)>>8), byte(len(body)))
		return append(dst, body...)
	}
	length := len(body) + 1 + p.aead.Overhead()
	dst = slices.Grow(dst, headerSize+length)
	start := len(dst)
	dst = append(dst, recordData, 3, 3, byte(length>>8), byte(length))
	plain := len(dst)
	dst = append(append(dst, body...), typ)
	sealed := p.aead.Seal(dst[plain:plain], p.nonce(), dst[plain:], dst[start:plain])
	return dst[:plain+len(sealed)]
}

// alert tells the other side of an error, as far as that is possible.
func (c *Conn) alert(a Alert) {
	const fatal = 2
	c.out.Lock()
	defer c.out.Unlock()
	if !c.out.closed {
		_ = c.send(recordAlert, []byte{fatal, byte(a)})
		c.out.closed = true
	}
}

// CloseWrite says goodbye; reading goes on.
func (c *Conn) CloseWrite() error {
	c.out.Lock()
	defer c.out.Unlock()
	return c.goodbye()
}

func (c *Conn) goodbye() error {
	if c.out.closed {
		return c.out.err
	}
	const warning = 1
	err := c.send(recordAlert, []byte{warning, byte(CloseNotify)})
	c.out.closed = true
	return err
}

// Close implements net.Conn. It says goodbye unless a Write is under way,
// which it ends.
func (c *Conn) Close() error {
	if c.out.TryLock() {
		_ = c.conn.SetWriteDeadline(time.Now().Add(closeWait))
		_ = c.goodbye()
		c.out.Unlock()
	}
	return c.conn.Close()
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error { return c.conn.SetDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.conn.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.conn.SetWriteDeadline(t) }

// handshakeMessage reads the next message of the handshake.
func (c *Conn) handshakeMessage(want uint8) ([]byte, error) {
	for {
		if msg := c.takeMessage(); msg != nil {
			if msg[0] != want {
				return nil, fail(UnexpectedMessage, "message %d in place of %d", msg[0], want)
			}
			return msg, nil
		}
		typ, body, err := c.readRecord()
		if err != nil {
			return nil, err
		}
		if typ != recordHandshake {
			return nil, fail(UnexpectedMessage, "data in the handshake")
		}
		if err := c.addMessages(body); err != nil {
			return nil, err
		}
	}
}

// protectIn begins to decrypt. What came before must have been read.
func (c *Conn) protectIn(suite uint16, secret []byte) error {
	if len(c.in.messages) > 0 {
		return fail(UnexpectedMessage, "a message goes on where the keys change")
	}
	c.in.protection = newProtection(suite, secret)
	return nil
}

// protectOut begins to encrypt.
func (c *Conn) protectOut(suite uint16, secret []byte) {
	c.out.Lock()
	defer c.out.Unlock()
	c.out.protection = newProtection(suite, secret)
}

func (c *Conn) sendHandshake(typ uint8, body []byte) error {
	c.out.Lock()
	defer c.out.Unlock()
	return c.send(typ, body)
}

// sendChangeCipherSpec sends the record that means nothing, for middleboxes.
func (c *Conn) sendChangeCipherSpec() error {
	return c.sendHandshake(recordChangeCipherSpec, []byte{1})
}

// checkFinished compares the other side's Finished.
func checkFinished(msg, key, transcript []byte) error {
	if subtle.ConstantTimeCompare(msg[4:], finished(key, transcript)) != 1 {
		return fail(DecryptError, "the handshake was tampered with")
	}
	return nil
}

func finishedMessage(key, transcript []byte) []byte {
	mac := finished(key, transcript)
	return append([]byte{typeFinished, 0, 0, byte(len(mac))}, mac...)
}
