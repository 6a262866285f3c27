package chardev

import (
	"context"

	"github.com/qmpblock/qmpblock/qerr"
)

// maxHub is the number of devices a hub can join.
const maxHub = 4

// mux passes on what comes over another device.
type mux struct{ base *Frontend }

func (s *Set) openMux(b *Mux) (device, error) {
	c := s.Get(b.Chardev)
	if c == nil {
		return nil, qerr.New("mux: base chardev %s not found", b.Chardev)
	}
	base, err := c.attach(true)
	if err != nil {
		return nil, err
	}
	return &mux{base}, nil
}

func (m *mux) filename() string                         { return "mux" }
func (m *mux) accept(ctx context.Context) (Conn, error) { return m.base.Accept(ctx) }
func (m *mux) close()                                   { m.base.Detach() }

// hub holds other devices. Nothing passes through it, see the package comment.
type hub struct {
	*stream
	members []*Frontend
}

func (s *Set) openHub(own string, b *Hub) (device, error) {
	if len(b.Chardevs) == 0 {
		return nil, qerr.New("hub: 'chardevs' list is not defined")
	}
	h := &hub{stream: newStream("hub", nil, nil)}
	h.ended = true // no connection ever
	for _, label := range b.Chardevs {
		if err := h.join(s, label, own); err != nil {
			h.close()
			return nil, err
		}
	}
	return h, nil
}

func (h *hub) join(s *Set, label, own string) error {
	c := s.Get(label)
	switch {
	case c == nil:
		return qerr.New("hub: chardev can't be found by id '%s'", label)
	case c.isMux():
		return qerr.New("hub: multiplexers and hub devices can't be stacked, check chardev '%s', "+
			"chardev should not be a hub device or have 'mux=on' enabled", label)
	case len(h.members) == maxHub:
		return qerr.New("hub: too many uses of chardevs '%s' (maximum is %d)", own, maxHub)
	}
	member, err := c.attach(true)
	if err == nil {
		h.members = append(h.members, member)
	}
	return err
}

func (h *hub) close() {
	h.stream.close()
	for _, m := range h.members {
		m.Detach()
	}
}
