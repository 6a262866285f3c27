package schema

import (
	"bytes"
	"testing"

	"github.com/qmpblock/qmpblock/keyval"
	"github.com/qmpblock/qmpblock/qjson"
)

// FuzzRequest reads arguments of every command. What is accepted must print
// as something that is accepted too, and prints the same.
func FuzzRequest(f *testing.F) {
	for _, r := range recordedRequests(f) {
		f.Add([]byte(r.request))
	}
	var last any
	table := checker(Newest, func(args any) { last = args })
	f.Fuzz(func(t *testing.T, request []byte) {
		v, err := qjson.Parse(request)
		if err != nil || v.Kind() != qjson.Object {
			return
		}
		c := table.Lookup(v.Get("execute").Str())
		if c == nil {
			return
		}
		last = nil
		if _, err := c.Run(t.Context(), v.Get("arguments"), nil); err != nil || last == nil {
			return
		}
		once := last.(encodable).appendJSON(nil, Newest)
		again, err := qjson.Parse(once)
		if err != nil {
			t.Fatalf("%s: %v", once, err)
		}
		if _, err := c.Run(t.Context(), again, nil); err != nil {
			t.Fatalf("%s: %v", once, err)
		}
		if twice := last.(encodable).appendJSON(nil, Newest); !bytes.Equal(once, twice) {
			t.Fatalf("%s became %s", once, twice)
		}
	})
}

// FuzzOption reads options of a command line.
func FuzzOption(f *testing.F) {
	for _, o := range options {
		f.Add(o.value)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, _, err := keyval.ParseOption(text, "driver")
		if err != nil {
			return
		}
		o, err := DecodeBlockdevOptions(v, Keyval)
		if err != nil {
			return
		}
		again, err := qjson.Parse(o.AppendJSON(nil))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeBlockdevOptions(again, QMP); err != nil {
			t.Fatalf("%s: %v", o.AppendJSON(nil), err)
		}
	})
}
