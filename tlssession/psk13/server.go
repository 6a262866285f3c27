package psk13

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"net"
	"slices"
)

// Server does the handshake of the side that listens. keys finds the key of an
// identity, nil for one that is unknown, which the client cannot tell from a
// wrong key. The connection is closed when the handshake fails or ctx ends
// before.
func Server(ctx context.Context, conn net.Conn, keys func(identity string) []byte) (*Conn, error) {
	c := &Conn{conn: conn, compatible: true}
	return c, c.handshake(ctx, func() error {
		h := &serverHandshake{c: c, keys: keys, transcript: newTranscript()}
		return h.run()
	})
}

type serverHandshake struct {
	c          *Conn
	keys       func(identity string) []byte
	transcript transcript
	secrets    *secrets
	hello      *clientHello
	msg        []byte // the hello as it came
	suite      uint16
	group      uint16
	selected   int // identity
	retried    bool
}

func (h *serverHandshake) run() error {
	if err := h.clientHello(); err != nil {
		return err
	}
	if err := h.choose(); err != nil {
		return err
	}
	if h.hello.share(h.group) == nil {
		if err := h.retry(); err != nil {
			return err
		}
	}
	if err := h.authenticate(); err != nil {
		return err
	}
	if err := h.answer(); err != nil {
		return err
	}
	return h.finish()
}

func (h *serverHandshake) clientHello() (err error) {
	if h.msg, err = h.c.handshakeMessage(typeClientHello); err != nil {
		return err
	}
	if len(h.c.in.messages) > 0 {
		return fail(UnexpectedMessage, "something follows the hello")
	}
	h.hello, err = parseClientHello(h.msg)
	return err
}

// choose picks suite and group by our preference among what the client has.
func (h *serverHandshake) choose() error {
	switch {
	case h.hello.identities == nil || !slices.Contains(h.hello.modes, modeDHEKE):
		return ErrNoPSK
	case h.hello.groups == nil:
		return fail(MissingExtension, "the client names no groups")
	case h.hello.earlyData:
		return fail(HandshakeFailure, "early data cannot be had")
	}
	var ok bool
	if h.suite, ok = first(suites(), func(s uint16) bool { return slices.Contains(h.hello.suites, s) }); !ok {
		return ErrNoCommonCipher
	}
	// A group without a share costs a round trip.
	if h.group, ok = first(groups(), func(g uint16) bool { return h.hello.share(g) != nil }); ok {
		return nil
	}
	if h.group, ok = first(groups(), func(g uint16) bool { return slices.Contains(h.hello.groups, g) }); !ok {
		return fail(HandshakeFailure, "there is no common group")
	}
	return nil
}

func first(list []uint16, f func(uint16) bool) (uint16, bool) {
	i := slices.IndexFunc(list, f)
	if i < 0 {
		return 0, false
	}
	return list[i], true
}

// retry asks for a hello with a share of the chosen group.
func (h *serverHandshake) retry() error {
	before := h.hello
	h.transcript.Write(h.msg)
	h.transcript.retry()
	m := &serverHello{retry: true, sessionID: before.sessionID, suite: h.suite, share: keyShare{group: h.group}}
	msg, err := m.marshal()
	if err != nil {
		return fail(InternalError, "%v", err)
	}
	h.transcript.Write(msg)
	if err := h.c.sendHandshake(recordHandshake, msg); err != nil {
		return err
	}
	h.retried = true
	if err := h.changeCipherSpec(); err != nil {
		return err
	}
	if err := h.clientHello(); err != nil {
		return err
	}
	switch {
	case h.hello.identities == nil || !slices.Contains(h.hello.modes, modeDHEKE):
		return ErrNoPSK
	case len(h.hello.shares) != 1 || h.hello.share(h.group) == nil || h.hello.earlyData ||
		!slices.Contains(h.hello.suites, h.suite) || !bytes.Equal(h.hello.sessionID, before.sessionID) ||
		h.hello.random != before.random:
		return fail(IllegalParameter, "the second hello is not what was asked for")
	}
	return nil
}

// authenticate checks that the client has the key of the first identity that
// is known.
func (h *serverHandshake) authenticate() error {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails; for an unknown client
	for i, identity := range h.hello.identities {
		if k := h.keys(string(identity)); k != nil {
			key, h.selected, h.c.identity = k, i, string(identity)
			break
		}
	}
	h.secrets = newSecrets(key)
	want := h.secrets.binder(h.transcript.with(h.msg[:h.hello.truncated]))
	if subtle.ConstantTimeCompare(want, h.hello.binders[h.selected]) != 1 {
		return ErrWrongKey
	}
	h.transcript.Write(h.msg)
	return nil
}

// answer sends all that the server has to say.
func (h *serverHandshake) answer() error {
	key, err := newKey(h.group)
	if err != nil {
		return err
	}
	shared, err := agree(key, h.hello.share(h.group))
	if err != nil {
		return err
	}
	m := &serverHello{
		sessionID: h.hello.sessionID, suite: h.suite, share: keyShare{h.group, key.PublicKey().Bytes()},
		hasPSK: true, selected: uint16(h.selected),
	}
	_, _ = rand.Read(m.random[:]) // never fails
	msg, err := m.marshal()
	if err != nil {
		return fail(InternalError, "%v", err)
	}
	h.transcript.Write(msg)
	if err := h.c.sendHandshake(recordHandshake, msg); err != nil {
		return err
	}
	if !h.retried {
		if err := h.changeCipherSpec(); err != nil {
			return err
		}
	}
	h.secrets.exchange(shared, h.transcript.sum())
	h.c.protectOut(h.suite, h.secrets.server)
	extensions := []byte{typeEncryptedExtensions, 0, 0, 2, 0, 0}
	h.transcript.Write(extensions)
	end := finishedMessage(h.secrets.srvFin, h.transcript.sum())
	h.transcript.Write(end)
	return h.c.sendHandshake(recordHandshake, append(extensions, end...))
}

// changeCipherSpec is for a client in compatibility mode.
func (h *serverHandshake) changeCipherSpec() error {
	if len(h.hello.sessionID) == 0 {
		return nil
	}
	return h.c.sendChangeCipherSpec()
}

// finish awaits the client's Finished and turns to application traffic.
func (h *serverHandshake) finish() error {
	if err := h.c.protectIn(h.suite, h.secrets.client); err != nil {
		return err
	}
	clientFin, transcript := h.secrets.clientFin, h.transcript.sum()
	msg, err := h.c.handshakeMessage(typeFinished)
	if err != nil {
		return err
	}
	if err := checkFinished(msg, clientFin, transcript); err != nil {
		return err
	}
	h.secrets.application(transcript)
	h.c.protectOut(h.suite, h.secrets.server)
	return h.c.protectIn(h.suite, h.secrets.client)
}
