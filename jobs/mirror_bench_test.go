package jobs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/drivertest"
	"github.com/qmpblock/qmpblock/drivers/file"
	"github.com/qmpblock/qmpblock/jobs"
)

// What mirroring a file to a file costs: one that is full of data, and a large
// one that has next to none.
func BenchmarkMirror(b *testing.B) {
	for _, c := range []struct {
		name       string
		size, data int64
	}{{"full", 256 << 20, 256 << 20}, {"sparse", 1 << 40, 1 << 20}} {
		b.Run(c.name, func(b *testing.B) {
			bench := drivertest.New(b, file.Driver())
			set := jobs.NewSet(jobs.Config{Main: bench.Graph.Main(), Changed: func(string, jobs.Status) {}, Events: silent{}})
			b.Cleanup(func() { bench.Main(set.Close) })
			source := bench.Add(disk(b, "source", c.size, c.data))
			b.SetBytes(c.data)
			for n := 0; b.Loop(); n++ {
				name := fmt.Sprintf("target%d", n)
				mirrorOnce(b, bench, set, source, bench.Add(disk(b, name, c.size, 0)))
				bench.Delete(name)
			}
		})
	}
}

// disk makes a file and returns the options for it.
func disk(b *testing.B, name string, size, data int64) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), name)
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for at := int64(0); at < data; at += 1 << 20 {
		if _, err := f.WriteAt(drivertest.Fill(0x5a, 1<<20)[0], at); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		b.Fatal(err)
	}
	return fmt.Sprintf(`{"driver":"file","node-name":%q,"filename":%q,"discard":"unmap"}`, name, path)
}

func mirrorOnce(b *testing.B, bench *drivertest.Bench, set *jobs.Set, source, target *block.Node) {
	b.Helper()
	bench.Main(func(l *aio.Lock) {
		job, err := set.CreateMirror(l, jobs.MirrorParams{
			Params: jobs.Params{ID: "j", ManualDismiss: true}, Graph: bench.Graph,
			Source: source, Target: target, ZeroTarget: true, Unmap: true,
		})
		if err != nil {
			b.Fatal(err)
		}
		job.Start(l)
		aio.WaitWhile(l, func() bool { return job.Status(l) != jobs.Ready })
		if err := job.Cancel(l, false); err != nil {
			b.Fatal(err)
		}
		aio.WaitWhile(l, func() bool { return job.Status(l) != jobs.Concluded })
		if err := job.Err(l); err != nil {
			b.Fatal(err)
		}
		if err := job.Dismiss(l); err != nil {
			b.Fatal(err)
		}
	})
}
