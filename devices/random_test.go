package devices_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestRandomCommands gives random commands to the reference and to us. After
// each, the drives must be the same.
func TestRandomCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("asks the reference hundreds of times")
	}
	reference, ours := newReference(t), newOurs(t)
	both := func(line string) {
		command, args, _ := strings.Cut(line, " ")
		want := reference.play(command, args)
		if got := ours.play(command, args); !slices.Equal(got, want) {
			t.Errorf("%s\n  reference: %q\n  ours:      %q", line, want, got)
		}
	}
	for i := range 4 {
		both(fmt.Sprintf(`blockdev-add {"driver":"null-co","node-name":"n%d","size":1048576,"read-only":%t}`, i, i%2 == 0))
	}
	both(`object-add {"qom-type":"iothread","id":"io0"}`)
	r := rand.New(rand.NewPCG(3, 4))
	for range 250 {
		both(randomCommand(r))
		both("drives")
		both("perms")
	}
}

func randomCommand(r *rand.Rand) string {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	id := pick("a", "b", "c", "d", "e", "f", "g")
	switch r.IntN(10) {
	case 0, 1:
		return `device_del {"id":"` + id + `"}`
	case 2:
		return "complete"
	case 3:
		return `qom-list {"path":"` + pick("/machine/peripheral", "/machine/peripheral-anon", "/machine/i440fx/pci.0") + `"}`
	}
	members := []string{`"driver":"` + pick("virtio-blk", "virtio-blk-pci", "virtio-scsi-pci", "scsi-hd", "scsi-hd", "scsi-cd") + `"`}
	if r.IntN(4) > 0 {
		members = append(members, `"id":"`+id+`"`)
	}
	if r.IntN(5) > 0 {
		members = append(members, fmt.Sprintf(`"drive":"n%d"`, r.IntN(5)))
	}
	for _, p := range r.Perm(len(randomProperties))[:r.IntN(4)] {
		name, _, _ := strings.Cut(randomProperties[p], ":")
		if !strings.Contains(strings.Join(members, ","), name+":") {
			members = append(members, randomProperties[p])
		}
	}
	return "device_add {" + strings.Join(members, ",") + "}"
}

var randomProperties = []string{
	`"share-rw":true`, `"write-cache":"off"`, `"write-cache":"maybe"`, `"serial":"abc"`, `"serial":5`, `"bootindex":1`, `"bootindex":2`,
	`"bus":"pci.0"`, `"bus":"a.0"`, `"bus":"scsi.0"`, `"addr":"5"`, `"addr":"5.1"`, `"addr":99`, `"multifunction":true`, `"lun":1`,
	`"scsi-id":2`, `"channel":1`, `"logical_block_size":4096`, `"physical_block_size":4096`, `"min_io_size":512`, `"opt_io_size":3`,
	`"num-queues":4`, `"queue-size":64`, `"iothread":"io0"`, `"iothread":"none"`, `"cyls":3`, `"removable":true`, `"werror":"stop"`,
	`"rerror":"report"`, `"werror":"report"`, `"bogus":1`, `"disable-legacy":"on"`, `"disable-modern":true`, `"num_queues":3`, `"hotplug":false`,
}
