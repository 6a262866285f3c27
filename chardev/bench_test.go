package chardev

import (
	"path/filepath"
	"testing"

	"github.com/qmpblock/qmpblock/qom"
	"github.com/qmpblock/qmpblock/sockets"
)

// BenchmarkUnixRoundTrip echoes a short line over a UNIX socket.
func BenchmarkUnixRoundTrip(b *testing.B) {
	path := filepath.Join(b.TempDir(), "s")
	s := NewSet(qom.NewTree(qom.Hooks{}, qom.StorageDaemonTypes()...), Config{})
	defer s.Close()
	if _, err := s.Add(b.Context(), "server", &Socket{Addr: sockets.Address{Unix: &sockets.UnixAddress{Path: path}}}); err != nil {
		b.Fatal(err)
	}
	if _, err := s.Add(b.Context(), "client", &Socket{Addr: sockets.Address{Unix: &sockets.UnixAddress{Path: path}}, Server: new(false)}); err != nil {
		b.Fatal(err)
	}
	open := func(label string) Conn {
		f, err := s.Get(label).Attach()
		if err != nil {
			b.Fatal(err)
		}
		conn, err := f.Accept(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		return conn
	}
	server, client := open("server"), open("client")
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, err := server.Read(buf)
			if err != nil {
				return
			}
			server.Write(buf[:n])
		}
	}()
	line := []byte(`{"execute": "query-version"}` + "\n")
	buf := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		client.Write(line)
		if _, err := client.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
	client.Close()
	<-done
}
