package block_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

const (
	read      = block.PermConsistentRead
	write     = block.PermWrite
	unchanged = block.PermWriteUnchanged
	resize    = block.PermResize
	all       = block.PermAll
)

func TestPermNames(t *testing.T) {
	t.Parallel()
	for perm, want := range map[block.Perm]string{
		0: "", read: "consistent read", write | resize: "write, resize",
		all: "consistent read, write, write unchanged, resize",
	} {
		if perm.String() != want {
			t.Errorf("%d is %q, want %q", perm, perm, want)
		}
	}
}

// Conflicts between two users of a node, in the reference's words.
func TestConflicts(t *testing.T) {
	t.Parallel()
	const (
		users  = "Permission conflict on node 'm': permissions '"
		byUser = "' are both required by an unnamed block device (uses node 'm' as 'root' child) and unshared by "
		user   = "an unnamed block device (uses node 'm' as 'root' child)."
	)
	for _, c := range []struct {
		perm1, shared1, perm2, shared2 block.Perm
		err                            string
	}{
		{read, all, all, all, ""},
		{all, 0, 0, all, ""},
		{read | write, read, read, all, ""},
		{write, all &^ write, write, all, users + "write" + byUser + user},
		{write | resize, all, read, read, users + "write, resize" + byUser + user},
		{read, 0, read, all, users + "consistent read" + byUser + user},
		{unchanged, all, 0, all &^ unchanged, users + "write unchanged" + byUser + user},
	} {
		b := bench(t)
		n := b.Add(`{"driver":"mem","node-name":"m","size":4096}`)
		_, err := b.TryUse(n, c.perm1, c.shared1)
		must(t, err)
		if _, err := b.TryUse(n, c.perm2, c.shared2); text(err) != c.err {
			t.Errorf("%v/%v and %v/%v: %q, want %q", c.perm1, c.shared1, c.perm2, c.shared2, text(err), c.err)
		}
	}
}

// How users are called in errors.
func TestConflictNames(t *testing.T) {
	t.Parallel()
	b := bench(t)
	b.Add(`{"driver":"mem","node-name":"m","size":4096}`)
	b.Add(`{"driver":"raw","node-name":"r","file":"m"}`)
	writer, err := b.TryUse(b.Graph.Node("r"), write, all)
	must(t, err)
	for _, c := range []struct{ name, device, want string }{
		{"", "", "an unnamed block device"},
		{"drive0", "", "block device 'drive0'"},
		{"", "/machine/peripheral/vd0", "block device '/machine/peripheral/vd0'"},
		{"drive0", "vd0", "block device 'drive0'"},
	} {
		blk := b.Graph.NewBackend(c.name, read, all&^write)
		blk.SetDevice(c.device)
		var err error
		b.Main(func(l *aio.Lock) {
			err = blk.Insert(l, b.Graph.Node("m"))
			blk.Close(l)
		})
		want := "Permission conflict on node 'm': permissions 'write' are both required by node 'r' " +
			"(uses node 'm' as 'file' child) and unshared by " + c.want + " (uses node 'm' as 'root' child)."
		if text(err) != want {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	b.Drop(writer)
}

// A conflict anywhere below the changed edge counts.
func TestDeepConflict(t *testing.T) {
	t.Parallel()
	b := bench(t)
	b.Add(`{"driver":"mem","node-name":"m","size":4096}`)
	b.Add(`{"driver":"raw","node-name":"r0","file":"m"}`)
	b.Add(`{"driver":"raw","node-name":"r1","file":"r0"}`)
	b.Add(`{"driver":"raw","node-name":"s0","file":"m"}`)
	_, err := b.TryUse(b.Graph.Node("s0"), read, all&^write)
	must(t, err)
	const want = "Permission conflict on node 'm': permissions 'write' are both required by node 'r0' " +
		"(uses node 'm' as 'file' child) and unshared by node 's0' (uses node 'm' as 'file' child)."
	if _, err := b.TryUse(b.Graph.Node("r1"), write, all); text(err) != want {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestReadOnlyUsers(t *testing.T) {
	t.Parallel()
	b := bench(t)
	n := b.Add(`{"driver":"mem","node-name":"m","size":4096,"read-only":true}`)
	if _, err := b.TryUse(n, write, all); text(err) != "Block node is read-only" {
		t.Errorf("got %v", err)
	}
	b.Add(`{"driver":"raw","node-name":"r","file":"m"}`)
	if _, err := b.TryUse(b.Graph.Node("r"), write, all); text(err) != "Block node is read-only" {
		t.Errorf("through a writable node: %v", err)
	}
	rw := b.Add(`{"driver":"mem","node-name":"rw","size":4096}`)
	_, err := b.TryUse(rw, write, all)
	must(t, err)
	const want = "Read-only block node 'rw' cannot support read-write users"
	if err := b.Reopen(`{"driver":"mem","node-name":"rw","size":4096,"read-only":true}`); text(err) != want {
		t.Errorf("got %v, want %q", err, want)
	}
}

// Writing to an image whose length is no multiple of the alignment would make
// it longer, and so takes the permission to.
func TestUnalignedLength(t *testing.T) {
	t.Parallel()
	b := bench(t)
	n := b.Add(`{"driver":"mem","node-name":"m","size":5120,"align":4096}`)
	const want = "Cannot get 'write' permission without 'resize': Image size is not a multiple of request alignment"
	if _, err := b.TryUse(n, write, all); text(err) != want {
		t.Errorf("got %v, want %q", err, want)
	}
	_, err := b.TryUse(n, write|resize, all)
	must(t, err)
}

// force-share shares everything, whatever the users share.
func TestForceShare(t *testing.T) {
	t.Parallel()
	b := bench(t)
	n := b.Add(`{"driver":"raw","node-name":"r","read-only":true,"force-share":true,"size":512,"file":{"driver":"mem","node-name":"m","size":4096}}`)
	_, err := b.TryUse(n, read, 0)
	must(t, err)
	if got := n.File().Shared(); got != all {
		t.Errorf("it shares %v", got)
	}
	const want = "force-share=on can only be used with read-only images"
	if _, err := b.TryAdd(`{"driver":"mem","node-name":"x","force-share":true}`); text(err) != want {
		t.Errorf("got %v", err)
	}
}

// TestConflictModel: what the counters say is what asking each pair of users
// would say.
func TestConflictModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		b := bench(t)
		n := b.Add(`{"driver":"mem","node-name":"m","size":4096}`)
		type user struct{ perm, shared block.Perm }
		var users []user
		var backends []*block.Backend
		draw := func(rt *rapid.T, label string) block.Perm {
			return block.Perm(rapid.SampledFrom([]int{0, 1, 2, 4, 8, 3, 10}).Draw(rt, label))
		}
		fits := func(u user, except int) bool {
			for i, other := range users {
				if i != except && (u.perm&^other.shared != 0 || other.perm&^u.shared != 0) {
					return false
				}
			}
			return true
		}
		rt.Repeat(map[string]func(*rapid.T){
			"insert": func(rt *rapid.T) {
				u := user{draw(rt, "perm"), all &^ draw(rt, "denied")}
				blk, err := b.TryUse(n, u.perm, u.shared)
				if (err == nil) != fits(u, -1) {
					rt.Fatalf("%v among %v: %v", u, users, err)
				}
				if err == nil {
					users, backends = append(users, u), append(backends, blk)
				}
			},
			"change": func(rt *rapid.T) {
				if len(users) == 0 {
					rt.Skip("nobody is there")
				}
				i := rapid.IntRange(0, len(users)-1).Draw(rt, "user")
				u := user{draw(rt, "perm"), all &^ draw(rt, "denied")}
				var err error
				b.Main(func(l *aio.Lock) { err = backends[i].SetPerm(l, u.perm, u.shared) })
				if (err == nil) != fits(u, i) {
					rt.Fatalf("%d becomes %v among %v: %v", i, u, users, err)
				}
				if err == nil {
					users[i] = u
				}
			},
			"remove": func(rt *rapid.T) {
				if len(users) == 0 {
					rt.Skip("nobody is there")
				}
				i := rapid.IntRange(0, len(users)-1).Draw(rt, "user")
				b.Drop(backends[i])
				users, backends = append(users[:i], users[i+1:]...), append(backends[:i], backends[i+1:]...)
			},
			"": func(rt *rapid.T) {
				want := user{0, all}
				for _, u := range users {
					want.perm |= u.perm
					want.shared &= u.shared
				}
				if perm, shared := n.Cumulative(); perm != want.perm || shared != want.shared {
					rt.Fatalf("together %v/%v, want %v", perm, shared, want)
				}
			},
		})
		for _, blk := range backends {
			b.Drop(blk)
		}
	})
}
