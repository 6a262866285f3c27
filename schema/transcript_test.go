package schema

import (
	"context"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/qjson"
)

// recorded is a request of a transcript and the schema's complaint, "" for
// none.
type recorded struct{ request, complaint string }

func recordedRequests(tb testing.TB) []recorded {
	tb.Helper()
	text, err := os.ReadFile("testdata/requests.txt")
	if err != nil {
		tb.Fatal(err)
	}
	var all []recorded
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if request, ok := strings.CutPrefix(line, "-> "); ok {
			all = append(all, recorded{request: request})
		} else if complaint, ok := strings.CutPrefix(line, "<-"); ok {
			all[len(all)-1].complaint = strings.TrimPrefix(complaint, " ")
		}
	}
	return all
}

// checker returns a table in which every command reads its arguments, hands
// them to seen, if there is one, and answers the zero value.
func checker(v Version, seen func(args any)) *Table {
	t := NewTableFor(v)
	table := reflect.ValueOf(t)
	for i := range table.NumMethod() {
		register := table.Method(i)
		if register.Type().NumIn() != 1 || register.Type().In(0).Kind() != reflect.Func {
			continue
		}
		handler := register.Type().In(0)
		register.Call([]reflect.Value{reflect.MakeFunc(handler, func(in []reflect.Value) []reflect.Value {
			if seen != nil && len(in) == 2 {
				seen(in[1].Interface())
			}
			return zeroResults(handler)
		})})
	}
	return t
}

func zeroResults(f reflect.Type) []reflect.Value {
	var out []reflect.Value
	for i := range f.NumOut() {
		if r := f.Out(i); r.Kind() == reflect.Pointer {
			out = append(out, reflect.New(r.Elem()))
		} else {
			out = append(out, reflect.Zero(r))
		}
	}
	return out
}

// complaint returns the error a request's arguments give, "" for none.
func complaint(tb testing.TB, t *Table, request []byte) string {
	tb.Helper()
	v, err := qjson.Parse(request)
	if err != nil {
		tb.Fatalf("%s: %v", request, err)
	}
	c := t.Lookup(v.Get("execute").Str())
	if c == nil {
		tb.Fatalf("%s: no such command", request)
	}
	if _, err := c.Run(context.Background(), v.Get("arguments"), nil); err != nil {
		return err.Error()
	}
	return ""
}

func TestRecordedRequests(t *testing.T) {
	t.Parallel()
	table := checker(Newest, nil)
	for _, r := range recordedRequests(t) {
		if got := complaint(t, table, []byte(r.request)); got != r.complaint {
			t.Errorf("%s\n got: %s\nwant: %s", r.request, got, r.complaint)
		}
	}
}
