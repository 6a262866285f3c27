package jsonrpc

import (
	"encoding/json"
	"testing"

	"github.com/sourcegraph/jsonrpc2"
)

// FuzzAccept: whatever a client sends, the library gets a request it can read,
// or the client an answer that is JSON, or nothing happens.
func FuzzAccept(f *testing.F) {
	for _, text := range []string{
		`{"jsonrpc": "2.0", "id": 1, "method": "query-block", "params": {"a": [1.0, null]}}`,
		`{"jsonrpc": "2.0", "id": "\u0000\ud83d\ude00", "method": "\u0000é"}`,
		`{'jsonrpc': '2.0', 'method': 'x'}`,
		`[]`, ` `, `{`, "\xff", `{"jsonrpc": "2.0", "id": 18446744073709551615, "method": ""}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c := new(conn)
		envelope, refusal := c.accept(text, nil)
		switch {
		case envelope != nil && refusal != nil:
			t.Errorf("both %s and %s", envelope, refusal)
		case envelope != nil:
			if err := json.Unmarshal(envelope, new(jsonrpc2.Request)); err != nil {
				t.Errorf("%s: %v", envelope, err)
			}
		case refusal != nil && !json.Valid(refusal):
			t.Errorf("no JSON: %s", refusal)
		}
	})
}
