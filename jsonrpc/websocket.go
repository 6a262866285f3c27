package jsonrpc

import (
	"errors"
	"log"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"github.com/qmpblock/qmpblock/qerr"
)

// loopback is where a WebSocket listens unless told otherwise: there is no
// password, so nobody else should reach it.
const loopback = "127.0.0.1"

// Limits of the HTTP request that opens a WebSocket.
const (
	handshakeLimit = 10 * time.Second
	maxHeader      = 16 << 10
)

// webServer turns HTTP requests into connections.
type webServer struct {
	l    *Listener
	host string // the name given on the command line
	up   websocket.Upgrader
}

// listenWebSocket serves WebSockets.
func (l *Listener) listenWebSocket(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return qerr.New("JSON-RPC address 'ws:%s' must be ws:HOST:PORT", address)
	}
	if host == "" {
		host = loopback
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return bindError(net.JoinHostPort(host, port), err)
	}
	l.url = "ws://" + ln.Addr().String() + "/"
	if a, ok := ln.Addr().(*net.TCPAddr); ok && !a.IP.IsLoopback() {
		l.Log.Warn().Str("address", l.url).Msg("JSON-RPC has no password and is open to other machines")
	}
	w := &webServer{l: l, host: host}
	w.up.CheckOrigin = func(*http.Request) bool { return true } // ServeHTTP has done it
	s := &http.Server{
		Handler:           w,
		ReadHeaderTimeout: handshakeLimit,
		IdleTimeout:       handshakeLimit,
		MaxHeaderBytes:    maxHeader,
		ConnState:         l.trackHTTP,
		ErrorLog:          log.New(l.Log, "", 0),
	}
	l.accept = func() {
		if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			l.Log.Error().Err(err).Str("address", l.url).Msg("JSON-RPC cannot accept connections any more")
		}
	}
	l.stop = func() error {
		err := s.Close()
		_ = ln.Close() // which the server knows only if it has served
		return err
	}
	return nil
}

// trackHTTP makes Close wait for the goroutines of HTTP connections. One that
// becomes a WebSocket is counted anew in ServeHTTP before it leaves here.
func (l *Listener) trackHTTP(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		l.owned.Add(1)
	case http.StateClosed, http.StateHijacked:
		l.owned.Done()
	}
}

// ServeHTTP checks who asks and serves the WebSocket to its end.
func (w *webServer) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	w.l.owned.Add(1)
	defer w.l.owned.Done()
	switch {
	case !w.isOurHost(r.Host):
		w.refuse(out, r, "this host name is not ours: "+r.Host)
		return
	case !sameOrigin(r):
		w.refuse(out, r, "pages of another origin may not connect: "+r.Header.Get("Origin"))
		return
	}
	c, err := w.up.Upgrade(out, r, nil)
	if err != nil {
		return // the client has been told
	}
	c.SetReadLimit(MaxMessage)
	w.l.serve(&messages{c})
}

func (w *webServer) refuse(out http.ResponseWriter, r *http.Request, why string) {
	w.l.Log.Warn().Str("client", r.RemoteAddr).Str("why", why).Msg("JSON-RPC refuses a WebSocket")
	http.Error(out, why, http.StatusForbidden)
}

// isOurHost guards against DNS rebinding: a page's own name may be made to
// point here, an address may not.
func (w *webServer) isOurHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	return strings.EqualFold(host, "localhost") || strings.EqualFold(host, w.host)
}

// sameOrigin holds for programs, which send no Origin, and for pages that
// come from this very host and port.
func sameOrigin(r *http.Request) bool {
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		return true
	}
	u, err := url.Parse(origins[0])
	return err == nil && len(origins) == 1 && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}

// messages is the transport of a WebSocket: a message is a message.
type messages struct{ *websocket.Conn }

func (t *messages) socket() net.Conn { return t.NetConn() }

func (t *messages) read() ([]byte, error) {
	_, message, err := t.ReadMessage()
	return message, err
}

func (t *messages) write(message []byte) error {
	return t.WriteMessage(websocket.TextMessage, message)
}

// Close says good-bye, if the client listens, and closes.
func (t *messages) Close() error {
	bye := websocket.FormatCloseMessage(websocket.CloseGoingAway, "")
	_ = t.WriteControl(websocket.CloseMessage, bye, time.Now().Add(FlushLimit))
	return t.Conn.Close()
}
