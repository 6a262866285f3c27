package ghash

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func keys[V any](t *Table[V]) []string {
	var ks []string
	for k := range t.All() {
		ks = append(ks, k)
	}
	return ks
}

// TestOrder has listings of the reference: properties of a type and children
// of an object.
func TestOrder(t *testing.T) {
	t.Parallel()
	tests := []struct{ insert, want string }{
		{"poll-max-ns poll-grow poll-shrink", "poll-max-ns poll-grow poll-shrink"},
		{"aio-max-batch thread-pool-min thread-pool-max", "thread-pool-min aio-max-batch thread-pool-max"},
		{"objects chardevs backend", "backend objects chardevs"},
		{"c0 r0 f0 n0 s0", "c0 r0 s0 f0 n0"},
		{"io0 tg", "tg io0"},
		{
			"x-iops-total x-iops-total-max x-iops-total-max-length x-iops-read x-iops-read-max x-iops-read-max-length" +
				" x-iops-write x-iops-write-max x-iops-write-max-length x-bps-total x-bps-total-max x-bps-total-max-length" +
				" x-bps-read x-bps-read-max x-bps-read-max-length x-bps-write x-bps-write-max x-bps-write-max-length x-iops-size limits",
			"x-bps-write-max-length x-iops-total-max-length x-iops-size limits x-bps-total x-iops-read-max-length x-bps-write" +
				" x-iops-write-max-length x-bps-read-max x-iops-read-max x-bps-total-max x-bps-read-max-length x-iops-read x-bps-read" +
				" x-bps-write-max x-iops-total-max x-iops-total x-iops-write x-bps-total-max-length x-iops-write-max",
		},
	}
	for _, tt := range tests {
		var table Table[int]
		for i, k := range strings.Fields(tt.insert) {
			table.Set(k, i)
		}
		var got []string
		for k := range table.Reversed() {
			got = append(got, k)
		}
		if !slices.Equal(got, strings.Fields(tt.want)) {
			t.Errorf("got %v\nwant %v", got, tt.want)
		}
		slices.Reverse(got)
		if !slices.Equal(got, keys(&table)) {
			t.Errorf("All is not the opposite of Reversed: %v", got)
		}
	}
}

func TestZeroTable(t *testing.T) {
	t.Parallel()
	var table Table[int]
	if _, ok := table.Get("a"); ok || table.Len() != 0 || len(keys(&table)) != 0 {
		t.Error("the zero table is not empty")
	}
	table.Delete("a")
}

// TestLikeMap checks that the table is a map, whatever happens to it.
func TestLikeMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var table Table[int]
		model := map[string]int{}
		key := rapid.StringMatching(`[a-d\x{e9}]{1,4}`)
		for i := range rapid.IntRange(0, 400).Draw(t, "steps") {
			k := key.Draw(t, "key")
			switch rapid.IntRange(0, 5).Draw(t, "operation") {
			case 0:
				table.Delete(k)
				delete(model, k)
			case 1:
				table.DeleteInPlace(k)
				delete(model, k)
			default:
				table.Set(k, i)
				model[k] = i
			}
		}
		if table.Len() != len(model) || len(keys(&table)) != len(model) {
			t.Fatalf("%d keys, want %d", table.Len(), len(model))
		}
		for k, v := range model {
			if got, ok := table.Get(k); !ok || got != v {
				t.Fatalf("%s: %d, %v; want %d", k, got, ok, v)
			}
		}
	})
}
