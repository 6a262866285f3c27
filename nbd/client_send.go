package nbd

import (
	"bufio"
	"net"
)

// sender writes requests. Sockets take headers and data from where they are;
// other connections, as those with TLS, get them through a buffer, so that
// small requests share a record.
type sender struct {
	conn    net.Conn
	headers []byte
	parts   net.Buffers // memory for what is to be written
	left    net.Buffers // of parts
	buffer  *bufio.Writer
}

const sendBuffer = 64 << 10

func (s *sender) init(conn net.Conn) {
	s.conn = conn
	s.headers = make([]byte, 0, maxInFlight*ExtendedRequestSize)
	switch conn.(type) {
	case *net.UnixConn, *net.TCPConn:
	default:
		s.buffer = bufio.NewWriterSize(conn, sendBuffer)
	}
}

// send writes the headers of requests, each with its data behind it.
func (s *sender) send(mode Mode, batch []*call) error {
	s.headers, s.parts = s.headers[:0], s.parts[:0]
	begin := 0
	for _, k := range batch {
		s.headers = mode.AppendRequest(s.headers, k.req)
		if k.req.Command == CmdWrite {
			s.parts = append(append(s.parts, s.headers[begin:]), k.vec...)
			begin = len(s.headers)
		}
	}
	if begin < len(s.headers) {
		s.parts = append(s.parts, s.headers[begin:])
	}
	if s.buffer != nil {
		return s.sendBuffered()
	}
	s.left = s.parts
	_, err := s.left.WriteTo(s.conn)
	return err
}

func (s *sender) sendBuffered() error {
	for _, b := range s.parts {
		if _, err := s.buffer.Write(b); err != nil {
			return err
		}
	}
	clear(s.parts)
	return s.buffer.Flush()
}
