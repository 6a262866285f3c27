package jobs_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/drivers/copybeforewrite"
	"github.com/qmpblock/qmpblock/drivers/file"
	"github.com/qmpblock/qmpblock/drivers/qcow2"
	"github.com/qmpblock/qmpblock/drivers/raw"
	"github.com/qmpblock/qmpblock/jobs"
)

// What a full backup takes into a fresh image: of a disk that is full, and of
// 1 TiB with 16 MiB in it, where the zeroes of the rest need metadata only.
func BenchmarkBackup(b *testing.B) {
	for _, v := range []struct {
		name             string
		source, target   string
		size, data, step int64
	}{
		{"raw to raw", "raw", "raw", 256 << 20, 256 << 20, 1 << 20},
		{"raw to qcow2", "raw", "qcow2", 256 << 20, 256 << 20, 1 << 20},
		{"qcow2 to qcow2", "qcow2", "qcow2", 256 << 20, 256 << 20, 1 << 20},
		{"sparse raw to qcow2", "raw", "qcow2", 1 << 40, 16 << 20, 64 << 30},
		{"sparse qcow2 to qcow2", "qcow2", "qcow2", 1 << 40, 16 << 20, 64 << 30},
	} {
		b.Run(v.name, func(b *testing.B) {
			s := &images{dir: b.TempDir(), size: v.size}
			s.backups = newBench(b, 0, file.Driver(), raw.Driver(), qcow2.Driver(), copybeforewrite.Driver())
			s.newImage("source", v.source)
			s.source = s.Add(s.node("source", v.source))
			user := s.Use(s.source)
			for at := int64(0); at < v.size; at += v.step {
				if err := user.Pwritev(aio.Outside, at, block.Vec{make([]byte, 1<<20-1), {1}}, 0); err != nil {
					b.Fatal(err)
				}
			}
			s.Drop(user)
			b.SetBytes(v.data)
			for b.Loop() {
				b.StopTimer()
				s.newImage("target", v.target)
				s.target = s.Add(s.node("target", v.target))
				b.StartTimer()
				if err := s.finish(s.start(jobs.BackupParams{Sync: jobs.SyncFull})); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				s.Delete("target")
				if err := os.Remove(s.path("target")); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// newImage makes an image of a format.
func (b *images) newImage(name, format string) {
	b.t.Helper()
	if format == "raw" {
		b.newFile(name, b.size)
	} else {
		b.newQcow2(name, "")
	}
}

// node is a node over an image of a format.
func (b *images) node(name, format string) string {
	if format == "qcow2" {
		return b.qcow2(name, "null")
	}
	return fmt.Sprintf(`{"node-name":%q,"driver":"raw","file":{"driver":"file","filename":%q}}`, name, b.path(name))
}
