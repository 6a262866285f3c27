package psk13

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"net"
	"slices"
	"time"
)

// Client does the handshake of the side that connects, under the key of that
// identity. The connection is closed when it fails or ctx ends before. An
// identity has 1 … 65535 bytes.
func Client(ctx context.Context, conn net.Conn, identity string, key []byte) (*Conn, error) {
	c := &Conn{conn: conn, isClient: true, identity: identity, compatible: true}
	return c, c.handshake(ctx, func() error {
		h := &clientHandshake{c: c, secrets: newSecrets(key), transcript: newTranscript()}
		return h.run()
	})
}

// handshake runs one side's handshake within ctx.
func (c *Conn) handshake(ctx context.Context, run func() error) error {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	c.in.Lock()
	err := run()
	if err != nil {
		err = c.breakOff(err)
	}
	c.compatible = false
	c.in.Unlock()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		c.conn.Close()
	}
	return err
}

type clientHandshake struct {
	c          *Conn
	secrets    *secrets
	transcript transcript
	hello      *clientHello
	keys       map[uint16]*ecdh.PrivateKey
	retried    bool
}

func (h *clientHandshake) run() error {
	if err := h.begin(); err != nil {
		return err
	}
	server, msg, err := h.serverHello()
	if err != nil {
		return err
	}
	if server.retry {
		if server, msg, err = h.retry(server, msg); err != nil {
			return err
		}
	}
	if err := h.agree(server, msg); err != nil {
		return err
	}
	return h.finish(server.suite)
}

// begin sends the hello.
func (h *clientHandshake) begin() error {
	h.hello = &clientHello{
		sessionID:  make([]byte, 32), // asks for compatibility mode
		suites:     suites(),
		versions:   []uint16{version13},
		groups:     groups(),
		modes:      []byte{modeDHEKE},
		identities: [][]byte{[]byte(h.c.identity)},
	}
	_, _ = rand.Read(h.hello.random[:]) // never fails
	_, _ = rand.Read(h.hello.sessionID)
	h.keys = map[uint16]*ecdh.PrivateKey{}
	// These two nearly every server takes.
	for _, group := range []uint16{groupX25519, groupP256} {
		if err := h.addShare(group); err != nil {
			return err
		}
	}
	return h.sendHello()
}

func (h *clientHandshake) addShare(group uint16) error {
	key, err := newKey(group)
	if err != nil {
		return err
	}
	h.keys[group] = key
	h.hello.shares = append(h.hello.shares, keyShare{group, key.PublicKey().Bytes()})
	return nil
}

// sendHello puts the binder into the hello and sends it.
func (h *clientHandshake) sendHello() error {
	msg, err := h.hello.marshal()
	if err != nil {
		return fail(InternalError, "the identity is too long")
	}
	binders := len(msg) - (2 + 1 + binderSize)
	copy(msg[binders+3:], h.secrets.binder(h.transcript.with(msg[:binders])))
	h.transcript.Write(msg)
	return h.c.sendHandshake(recordHandshake, msg)
}

func (h *clientHandshake) serverHello() (*serverHello, []byte, error) {
	msg, err := h.c.handshakeMessage(typeServerHello)
	if err != nil {
		return nil, nil, err
	}
	m, err := parseServerHello(msg)
	if err != nil {
		return nil, nil, err
	}
	if !bytes.Equal(m.sessionID, h.hello.sessionID) || !slices.Contains(h.hello.suites, m.suite) {
		return nil, nil, fail(IllegalParameter, "the server chose what was not offered")
	}
	return m, msg, nil
}

// retry sends a second hello as the server wishes it.
func (h *clientHandshake) retry(m *serverHello, msg []byte) (*serverHello, []byte, error) {
	h.transcript.retry()
	h.transcript.Write(msg)
	if !m.hasShare && m.cookie == nil {
		return nil, nil, fail(IllegalParameter, "the server asks for the same hello again")
	}
	h.hello.cookie = m.cookie
	if m.hasShare {
		group := m.share.group
		if h.keys[group] != nil || !slices.Contains(h.hello.groups, group) {
			return nil, nil, fail(IllegalParameter, "the server asks for a group that makes no sense")
		}
		h.hello.shares, h.keys = nil, map[uint16]*ecdh.PrivateKey{}
		if err := h.addShare(group); err != nil {
			return nil, nil, err
		}
	}
	h.retried = true
	if err := h.c.sendChangeCipherSpec(); err != nil {
		return nil, nil, err
	}
	if err := h.sendHello(); err != nil {
		return nil, nil, err
	}
	second, msg, err := h.serverHello()
	switch {
	case err != nil:
		return nil, nil, err
	case second.retry:
		return nil, nil, fail(UnexpectedMessage, "the server asks for a third hello")
	case second.suite != m.suite:
		return nil, nil, fail(IllegalParameter, "the server changed its mind about the cipher")
	}
	return second, msg, nil
}

// agree makes the secrets of the handshake.
func (h *clientHandshake) agree(m *serverHello, msg []byte) error {
	if !m.hasPSK {
		return ErrNoPSK
	}
	key := h.keys[m.share.group]
	if m.selected != 0 || !m.hasShare || key == nil {
		return fail(IllegalParameter, "the server chose what was not offered")
	}
	shared, err := agree(key, m.share.data)
	if err != nil {
		return err
	}
	h.transcript.Write(msg)
	h.secrets.exchange(shared, h.transcript.sum())
	return h.c.protectIn(m.suite, h.secrets.server)
}

func (h *clientHandshake) finish(suite uint16) error {
	msg, err := h.c.handshakeMessage(typeEncryptedExtensions)
	if err != nil {
		return err
	}
	if err := parseEncryptedExtensions(msg); err != nil {
		return err
	}
	h.transcript.Write(msg)
	if msg, err = h.c.handshakeMessage(typeFinished); err != nil {
		return err
	}
	if err := checkFinished(msg, h.secrets.srvFin, h.transcript.sum()); err != nil {
		return err
	}
	h.transcript.Write(msg)
	if !h.retried {
		if err := h.c.sendChangeCipherSpec(); err != nil {
			return err
		}
	}
	h.c.protectOut(suite, h.secrets.client)
	end := finishedMessage(h.secrets.clientFin, h.transcript.sum())
	if err := h.c.sendHandshake(recordHandshake, end); err != nil {
		return err
	}
	h.secrets.application(h.transcript.sum())
	h.c.protectOut(suite, h.secrets.client)
	return h.c.protectIn(suite, h.secrets.server)
}
