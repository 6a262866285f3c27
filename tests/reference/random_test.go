package reference

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

var (
	seed      = flag.Uint64("seed", 1, "what the random input is made from")
	sequences = flag.Int("sequences", 24, "how many random conversations of each kind")
	length    = flag.Int("length", 30, "how many requests a random conversation has")
	under     = flag.String("daemon", "", "the daemon to compare with the reference (default ours)")
)

// TestCommands sends random commands with valid and broken arguments.
func TestCommands(t *testing.T) {
	each(t, func(r *rand.Rand) []item {
		items := []item{request(`{"execute":"qmp_capabilities"}`)}
		for range *length {
			items = append(items, request(command(r)))
		}
		return items
	})
}

// TestMalformed sends requests in which bytes were changed, cut in pieces at
// random places.
func TestMalformed(t *testing.T) {
	each(t, func(r *rand.Rand) []item {
		items := []item{request(`{"execute":"qmp_capabilities"}`)}
		for range *length {
			text := garble(r, command(r)+"\n")
			items = append(items, item{pieces: cut(r, text), broken: true})
		}
		return items
	})
}

// TestUnnegotiated sends the same before, during and after the negotiation.
func TestUnnegotiated(t *testing.T) {
	each(t, func(r *rand.Rand) []item {
		var items []item
		for range *length / 2 {
			switch r.IntN(6) {
			case 0:
				items = append(items, request(pick(r, negotiations...)))
			case 1:
				items = append(items, item{pieces: cut(r, garble(r, pick(r, inOrder...)+"\n")), broken: true})
			default:
				items = append(items, request(command(r)))
			}
		}
		return items
	})
}

// each runs a kind of random conversation. Every one has a seed of its own,
// so that it can be repeated alone.
func each(t *testing.T, generate func(*rand.Rand) []item) {
	t.Helper()
	reference := daemon.Reference(t)
	ours := chosen(t)
	for n := range *sequences {
		t.Run(fmt.Sprintf("seed=%d/%d", *seed, n), func(t *testing.T) {
			t.Parallel()
			check(t, ours, reference, generate(rand.New(rand.NewPCG(*seed, uint64(n)))))
		})
	}
}

func chosen(t *testing.T) *daemon.Program {
	t.Helper()
	switch *under {
	case "":
	case "reference":
		return daemon.Reference(t)
	default:
		return daemon.At(*under)
	}
	root, err := daemon.Root()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := daemon.Ours(root, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return ours
}
