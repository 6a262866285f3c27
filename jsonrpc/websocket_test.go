package jsonrpc

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

func TestWhoMayOpenAWebSocket(t *testing.T) {
	t.Parallel()
	s := listen(t, "ws::0")
	host := strings.TrimSuffix(strings.TrimPrefix(s.URL(), "ws://"), "/")
	_, port, err := net.SplitHostPort(host)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, host, origin string
		refused            string
	}{
		{"a program", "", "", ""},
		{"a program by name", "localhost:" + port, "", ""},
		{"a page of ours", "", "http://" + host, ""},
		{"a page elsewhere", "", "http://evil.example", "pages of another origin may not connect: http://evil.example"},
		{"a page of another port", "", "http://127.0.0.1:1", "pages of another origin may not connect: http://127.0.0.1:1"},
		{"a file", "", "null", "pages of another origin may not connect: null"},
		{"a name that points here", "evil.example:" + port, "http://evil.example:" + port, "this host name is not ours: evil.example:" + port},
		{"a name without a page", "evil.example:" + port, "", "this host name is not ours: evil.example:" + port},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			header := http.Header{}
			if test.host != "" {
				header.Set("Host", test.host)
			}
			if test.origin != "" {
				header.Set("Origin", test.origin)
			}
			c, response, err := websocket.DefaultDialer.Dial(s.URL(), header)
			if test.refused == "" {
				if err != nil {
					t.Fatal(err)
				}
				_ = c.Close()
				return
			}
			if !errors.Is(err, websocket.ErrBadHandshake) {
				t.Fatalf("got %v", err)
			}
			body, _ := io.ReadAll(response.Body)
			if response.StatusCode != http.StatusForbidden || strings.TrimSpace(string(body)) != test.refused {
				t.Errorf("got %d %s", response.StatusCode, body)
			}
		})
	}
}

func TestPlainHTTPIsNotServed(t *testing.T) {
	t.Parallel()
	s := listen(t, "ws:localhost:0")
	response, err := http.Get("http" + strings.TrimPrefix(s.URL(), "ws"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusBadRequest {
		t.Errorf("got %s", response.Status)
	}
}

func TestWebSocketMessageLength(t *testing.T) {
	t.Parallel()
	s := listen(t, "ws:127.0.0.1:0")
	c, _, err := websocket.DefaultDialer.Dial(s.URL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	go func() { _ = c.WriteMessage(websocket.TextMessage, make([]byte, MaxMessage+1)) }()
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseMessageTooBig) {
		t.Errorf("got %v", err)
	}
}

func TestOpenToOthersIsLogged(t *testing.T) {
	t.Parallel()
	s := listen(t, "ws:0.0.0.0:0")
	if !strings.Contains(s.logs.String(), "JSON-RPC has no password and is open to other machines") {
		t.Errorf("the log says %q", s.logs)
	}
}
