package devices_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// fault is a mistake in the arguments of device_add, as members.
type fault map[string]string

// TestPrecedence combines mistakes by twos: the one found first is reported.
// The lists are in the order in which the reference finds them.
func TestPrecedence(t *testing.T) {
	t.Parallel()
	first := []fault{
		{"bus": `"nope"`},
		{"id": `"h0"`},
		{"bootindex": "3"},
		{"bogus": "1"},
	}
	sizes := []fault{
		{"logical_block_size": "4096"},
		{"min_io_size": "5"},
		{"opt_io_size": "5"},
		{"discard_granularity": "5"},
	}
	pci := []fault{
		{"addr": `"1d"`},
		{"disable-legacy": `"on"`, "disable-modern": "true"},
	}
	last := []fault{
		{"iothread": `"io0"`, "iothread-vq-mapping": `[{"iothread":"io0"}]`},
		{"ioeventfd": "false", "iothread": `"io0"`},
		{"failover_pair_id": `"x"`},
		{"romfile": `"nope"`},
	}
	geometry := fault{"cyls": "1"}
	busy := fault{"drive": `"busy"`}
	serial := fault{"serial": `"` + strings.Repeat("s", 37) + `"`}
	scsi := []fault{{"channel": "1"}, {"scsi-id": "256"}, {"lun": "16384"}, {"scsi-id": "7", "lun": "7"}}
	blk := []fault{{"drive": `""`}, {"num-queues": "0"}, {"queue-size": "1"}, busy, geometry}
	requests := []fault{{"max-discard-sectors": "0"}, {"max-write-zeroes-sectors": "0"}}

	for model, order := range map[string][]fault{
		"scsi-hd":         slices.Concat(first, scsi, []fault{{"drive": `""`}}, sizes, []fault{geometry, busy, serial}),
		"scsi-cd":         slices.Concat(first, scsi, sizes, []fault{busy, serial}),
		"virtio-blk-pci":  slices.Concat(first, pci, blk, sizes, requests, last),
		"virtio-scsi-pci": slices.Concat(pci, []fault{{"num_queues": "0"}, {"virtqueue_size": "1"}}, last),
	} {
		t.Run(model, func(t *testing.T) {
			t.Parallel()
			o := newOurs(t)
			for _, line := range []string{
				`blockdev-add {"driver":"null-co","node-name":"n","read-only":true}`,
				`blockdev-add {"driver":"null-co","node-name":"busy"}`,
				`object-add {"qom-type":"iothread","id":"io0"}`,
				`device_add {"driver":"virtio-scsi-pci","id":"s0"}`,
				`device_add {"driver":"virtio-blk-pci","id":"v0","drive":"busy","bootindex":3,"addr":"1d"}`,
				`device_add {"driver":"scsi-hd","id":"h0","drive":"n","lun":7,"scsi-id":7}`,
			} {
				command, args, _ := strings.Cut(line, " ")
				if got := o.play(command, args)[0]; got != "ok" {
					t.Fatalf("%s: %s", line, got)
				}
			}
			for i, a := range order {
				want := o.play("device_add", a.arguments(model))[0]
				if want == "ok" {
					t.Errorf("%v is no mistake", a)
				}
				for _, b := range order[i+1:] {
					if got := o.play("device_add", a.and(b).arguments(model))[0]; got != want {
						t.Errorf("%v and %v: %q, want %q", a, b, got, want)
					}
				}
			}
		})
	}
}

// and adds the members of another mistake that f does not have.
func (f fault) and(other fault) fault {
	sum := maps.Clone(other)
	maps.Copy(sum, f)
	return sum
}

func (f fault) arguments(model string) string {
	all := fault{"driver": `"` + model + `"`, "id": `"x"`}
	if model != "virtio-scsi-pci" {
		all["drive"] = `"n"`
	}
	var members []string
	for _, k := range slices.Sorted(maps.Keys(f.and(all))) {
		members = append(members, `"`+k+`":`+f.and(all)[k])
	}
	return "{" + strings.Join(members, ",") + "}"
}
