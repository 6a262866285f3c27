package jsonrpc

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"github.com/sourcegraph/jsonrpc2"
)

func TestCall(t *testing.T) {
	t.Parallel()
	bothTransports(t, func(t *testing.T, _ *server, connect func(jsonrpc2.Handler) *jsonrpc2.Conn) {
		c := connect(ignore)
		var got json.RawMessage
		if err := c.Call(t.Context(), "echo", map[string]any{"a": 1, "b": []string{"<x>"}}, &got); err != nil {
			t.Fatal(err)
		}
		var echoed struct {
			A int
			B []string
		}
		if err := json.Unmarshal(got, &echoed); err != nil || echoed.A != 1 || echoed.B[0] != "<x>" {
			t.Errorf("got %s, %v", got, err)
		}
		if err := c.Call(t.Context(), "echo", nil, &got); err != nil || string(got) != `"absent"` {
			t.Errorf("without params: got %s, %v", got, err)
		}
		if err := c.Call(t.Context(), "echo", struct{}{}, &got, jsonrpc2.StringID()); err != nil || string(got) != `{}` {
			t.Errorf("with a string id: got %s, %v", got, err)
		}
	})
}

func TestErrors(t *testing.T) {
	t.Parallel()
	bothTransports(t, func(t *testing.T, _ *server, connect func(jsonrpc2.Handler) *jsonrpc2.Conn) {
		c := connect(ignore)
		for _, test := range []struct {
			method  string
			params  any
			code    int64
			message string
			data    string
		}{
			{"no-such", nil, jsonrpc2.CodeMethodNotFound, "The command no-such has not been found", `{"class":"CommandNotFound"}`},
			{"fail", map[string]string{"device": "vd0"}, CodeCommandFailed, "Device 'vd0' not found", `{"class":"DeviceNotFound"}`},
			{"echo", []int{1}, jsonrpc2.CodeInvalidParams, "params must be an object: the command's arguments by name", ""},
			{"echo", json.RawMessage("null"), jsonrpc2.CodeInvalidParams, "params must be an object: the command's arguments by name", ""},
			{"infinite", nil, jsonrpc2.CodeInternalError, "the result cannot be expressed in JSON", ""},
		} {
			err := c.Call(t.Context(), test.method, test.params, nil)
			var e *jsonrpc2.Error
			if !errors.As(err, &e) {
				t.Errorf("%s: got %v", test.method, err)
				continue
			}
			data := ""
			if e.Data != nil {
				data = string(*e.Data)
			}
			if e.Code != test.code || e.Message != test.message || data != test.data {
				t.Errorf("%s: got %d %s %s", test.method, e.Code, e.Message, data)
			}
		}
		if err := c.Call(t.Context(), "empty", nil, nil); err != nil {
			t.Errorf("after the errors: %v", err)
		}
	})
}

// TestLines shows the conversation as it is on the wire.
func TestLines(t *testing.T) {
	t.Parallel()
	s := listenUnix(t)
	for _, test := range []struct{ name, in, out string }{
		{"call", `{"jsonrpc": "2.0", "id": 1, "method": "empty"}`, `{"id":1,"result":{},"jsonrpc":"2.0"}`},
		{"string id", `{"jsonrpc": "2.0", "id": "a\"b", "method": "empty"}`, `{"id":"a\"b","result":{},"jsonrpc":"2.0"}`},
		{"largest id", `{"jsonrpc": "2.0", "id": 9223372036854775807, "method": "empty"}`, `{"id":9223372036854775807,"result":{},"jsonrpc":"2.0"}`},
		{"QMP's quotes", `{'jsonrpc': '2.0', 'id': 2, 'method': 'empty'}`, `{"id":2,"result":{},"jsonrpc":"2.0"}`},
		{"QMP's numbers", `{"jsonrpc": "2.0", "id": 3, "method": "echo", "params": {"a": 18446744073709551615, "b": 1.0, "c": -0}}`,
			`{"id":3,"result":{"a":18446744073709551615,"b":1,"c":0},"jsonrpc":"2.0"}`},
		{"other members", `{"jsonrpc": "2.0", "id": 4, "method": "empty", "meta": {"x": 1}}`, `{"id":4,"result":{},"jsonrpc":"2.0"}`},
		{"no JSON", `hello`, `{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"JSON parse error, invalid keyword 'hello'"}}`},
		{"half a message", `{"jsonrpc": "2.0"`, `{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"JSON parse error, premature EOI"}}`},
		{"two in a line", `{} {}`, `{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Expecting at most one JSON value"}}`},
		{"duplicate", `{"jsonrpc": "2.0", "id": 5, "method": "echo", "params": {"a": 1, "a": 2}}`,
			`{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"JSON parse error, duplicate key"}}`},
		{"batch", `[{"jsonrpc": "2.0", "id": 6, "method": "empty"}]`,
			`{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"batches are not supported: send request after request, they are answered in order"}}`},
		{"no object", `7`, `{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"a request must be an object"}}`},
		{"QMP", `{"execute": "empty", "id": 8}`, `{"jsonrpc":"2.0","id":8,"error":{"code":-32600,"message":"member 'jsonrpc' must be \"2.0\""}}`},
		{"no method", `{"jsonrpc": "2.0", "id": 9}`, `{"jsonrpc":"2.0","id":9,"error":{"code":-32600,"message":"member 'method' must be a string"}}`},
		{"an answer", `{"jsonrpc": "2.0", "id": 10, "result": 1}`, `{"jsonrpc":"2.0","id":10,"error":{"code":-32600,"message":"member 'method' must be a string"}}`},
		{"null id", `{"jsonrpc": "2.0", "id": null, "method": "empty"}`,
			`{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"member 'id' must be a string or an integer from 0 to 2^63-1"}}`},
		{"negative id", `{"jsonrpc": "2.0", "id": -1, "method": "empty"}`,
			`{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"member 'id' must be a string or an integer from 0 to 2^63-1"}}`},
		{"error", `{"jsonrpc": "2.0", "id": 11, "method": "fail", "params": {"device": "\u00e9"}}`,
			`{"id":11,"error":{"code":-32000,"message":"Device 'é' not found","data":{"class":"DeviceNotFound"}},"jsonrpc":"2.0"}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := dialRaw(t, s)
			c.send("\n" + test.in + "\r\n")
			c.want(test.out)
			c.send(`{"jsonrpc": "2.0", "id": "next", "method": "empty"}` + "\n")
			c.want(`{"id":"next","result":{},"jsonrpc":"2.0"}`)
		})
	}
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	t.Parallel()
	s := listenUnix(t)
	c := dialRaw(t, s)
	c.send(`{"jsonrpc":"2.0","id":1,"method":"empty"}
{"jsonrpc":"2.0","method":"echo"}
nonsense
{"jsonrpc":"2.0","id":2,"method":"fail"}
{"jsonrpc":"2.0","id":3,"method":"echo"}`)
	if err := c.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	c.want(
		`{"id":1,"result":{},"jsonrpc":"2.0"}`,
		`{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"JSON parse error, invalid keyword 'nonsense'"}}`,
		`{"id":2,"error":{"code":-32000,"message":"Device '' not found","data":{"class":"DeviceNotFound"}},"jsonrpc":"2.0"}`,
		`{"id":3,"result":"absent","jsonrpc":"2.0"}`,
	)
	c.wantEnd()
	if got, want := s.commands(), []string{"empty", "echo", "fail", "echo"}; !slices.Equal(got, want) {
		t.Errorf("executed %v", got)
	}
}

func TestMessageLength(t *testing.T) {
	t.Parallel()
	s := listenUnix(t)
	c := dialRaw(t, s)
	long := `{"jsonrpc":"2.0","id":1,"method":"empty","params":{"a":"` + strings.Repeat("x", MaxMessage/2) + `"}}`
	c.send(long + "\n")
	c.want(`{"id":1,"result":{},"jsonrpc":"2.0"}`)
	c.send(strings.Repeat("x", MaxMessage+1) + "\n" + `{"jsonrpc":"2.0","id":2,"method":"empty"}` + "\n")
	c.want(
		`{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"message is longer than 16777216 bytes"}}`,
		`{"id":2,"result":{},"jsonrpc":"2.0"}`,
	)
}

func TestEvents(t *testing.T) {
	t.Parallel()
	bothTransports(t, func(t *testing.T, s *server, connect func(jsonrpc2.Handler) *jsonrpc2.Conn) {
		events := make(chan string, 2)
		c := connect(jsonrpc2.HandlerWithError(func(_ context.Context, _ *jsonrpc2.Conn, r *jsonrpc2.Request) (any, error) {
			events <- r.Method + " " + string(*r.Params)
			return nil, nil
		}))
		if err := c.Call(t.Context(), "resize", nil, nil); err != nil {
			t.Fatal(err)
		}
		s.emit("STOP", nil)
		for _, want := range []string{
			`event {"data":{"node":"a"},"event":"BLOCK_RESIZED","timestamp":{"microseconds":42,"seconds":1700000000}}`,
			`event {"event":"STOP","timestamp":{"microseconds":42,"seconds":1700000000}}`,
		} {
			if got := <-events; got != want {
				t.Errorf("got %s", got)
			}
		}
	})
}

func TestEventOfACommandComesBeforeItsAnswer(t *testing.T) {
	t.Parallel()
	s := listenUnix(t)
	c := dialRaw(t, s)
	c.send(`{"jsonrpc":"2.0","id":1,"method":"resize"}` + "\n")
	c.want(
		`{"jsonrpc":"2.0","method":"event","params":{"timestamp":{"seconds":1700000000,"microseconds":42},"event":"BLOCK_RESIZED","data":{"node":"a"}}}`,
		`{"id":1,"result":{},"jsonrpc":"2.0"}`,
	)
}

func TestAddress(t *testing.T) {
	t.Parallel()
	taken := listenUnix(t)
	for spec, want := range map[string]string{
		"tcp:1":             "JSON-RPC address 'tcp:1' must be unix:PATH or ws:HOST:PORT",
		"unix:":             "JSON-RPC address 'unix:' lacks a path",
		"ws:8080":           "JSON-RPC address 'ws:8080' must be ws:HOST:PORT",
		"unix:/nowhere/x/y": "Failed to bind socket to /nowhere/x/y: No such file or directory",
		taken.URL():         "Failed to bind socket to " + strings.TrimPrefix(taken.URL(), "unix:") + ": Address already in use",
	} {
		l, err := Listen(t.Context(), spec, Config{Executor: newFake()})
		if err == nil {
			_ = l.Close()
		}
		if err == nil || err.Error() != want {
			t.Errorf("%s: got %v", spec, err)
		}
	}
}

func TestSocketFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(shortDir(t), "rpc.sock")
	abandon(t, path)
	for range 2 {
		l, err := Listen(t.Context(), "unix:"+path, Config{Executor: newFake(), Log: zerolog.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("the socket is still there: %v", err)
		}
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), "unix:"+path, Config{Executor: newFake()}); err == nil {
		t.Error("a file that is no socket was replaced")
	}
}
