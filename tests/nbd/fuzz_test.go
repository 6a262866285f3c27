package nbd_test

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/nbd"
)

// throw sends bytes to a server, ends the input and reads until the server has
// closed the connection, as it must.
func throw(tb testing.TB, w *wire, b []byte) {
	tb.Helper()
	var sender sync.WaitGroup
	sender.Go(func() {
		if _, err := w.Write(b); err == nil {
			_ = w.Conn.(*net.UnixConn).CloseWrite() // it may be closed by now
		}
	})
	if _, err := io.Copy(io.Discard, w.in); errors.Is(err, os.ErrDeadlineExceeded) {
		tb.Errorf("the server does not close the connection\n%s", stacks())
	}
	w.Close()
	sender.Wait()
}

// fuzzServer is a server for all inputs; behind the last one nobody may hold
// the export.
func fuzzServer(f *testing.F) *instance {
	f.Helper()
	i, _ := peerServer(f)
	f.Cleanup(i.wellBehaved)
	return i
}

// FuzzServerHandshake sends whatever to a server that waits for options.
func FuzzServerHandshake(f *testing.F) {
	i := fuzzServer(f)
	fixed := clientFlags(3)
	f.Add([]byte{})
	f.Add(clientFlags(0))
	f.Add(slices.Concat(fixed, option(nbd.OptList, nil), option(nbd.OptAbort, nil)))
	f.Add(slices.Concat(fixed, option(nbd.OptExportName, []byte("x"))))
	f.Add(slices.Concat(fixed, option(nbd.OptStructuredReply, nil), option(nbd.OptSetMetaContext, metaData("x", "base:allocation")), option(nbd.OptGo, infoData("x", 3))))
	f.Add(slices.Concat(fixed, option(nbd.OptExtendedHeaders, nil), option(nbd.OptListMetaContext, metaData("x", "qemu:")), option(nbd.OptInfo, infoData("x", 1, 2))))
	f.Add(slices.Concat(fixed, option(nbd.OptStartTLS, nil), option(99, make([]byte, 70000)), optionOf(nbd.OptGo, 1<<31, nil)))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := dial("unix", i.socket())
		if err != nil {
			t.Fatal(err)
		}
		throw(t, w, b)
	})
}

// FuzzServerTransmission sends whatever to a server that waits for requests.
// The first byte chooses the mode.
func FuzzServerTransmission(f *testing.F) {
	i := fuzzServer(f)
	for m, mode := range modes {
		for command := nbd.CmdRead; command <= nbd.CmdResize; command++ {
			r := nbd.Request{Command: command, Cookie: 1, Offset: 512, Length: 1024}
			if mode == nbd.Extended && command == nbd.CmdWrite {
				r.Flags = nbd.CmdFlagPayloadLen
			}
			b := mode.AppendRequest([]byte{byte(m)}, r)
			if command == nbd.CmdWrite {
				b = append(b, make([]byte, 1024)...)
			}
			f.Add(mode.AppendRequest(b, nbd.Request{Command: nbd.CmdFlush}))
		}
	}
	f.Add(nbd.Extended.AppendRequest([]byte{2}, nbd.Request{Command: nbd.CmdBlockStatus, Flags: nbd.CmdFlagPayloadLen, Length: 12}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		w, err := dial("unix", i.socket())
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if err := w.enter(modes[b[0]%3], "x", nbd.ContextAllocation); err != nil {
			t.Fatal(err)
		}
		_ = w.SetDeadline(time.Now().Add(patience))
		throw(t, w, b[1:])
	})
}
