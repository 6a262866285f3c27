package qemuio

import (
	"testing"
	"time"
)

func TestOutcome(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		o    outcome
		want string
	}{
		{
			outcome{verb: "read", took: 500 * time.Millisecond, asked: 512, done: 512},
			"read 512/512 bytes at offset 0\n512 bytes, 1 ops; 00.50 sec (1 KiB/sec and 2.0000 ops/sec)\n",
		},
		{
			outcome{verb: "wrote", took: 2250 * time.Millisecond, offset: 7, asked: 9, done: 9},
			"wrote 9/9 bytes at offset 7\n9 bytes, 1 ops; 0:00:02.25 (4 bytes/sec and 0.4444 ops/sec)\n",
		},
		{
			outcome{verb: "read", took: time.Hour + 65*time.Second + 570*time.Millisecond, asked: 1 << 20, done: 1 << 20},
			"read 1048576/1048576 bytes at offset 0\n1 MiB, 1 ops; 1:01:05.57 (286.060831 bytes/sec and 0.0003 ops/sec)\n",
		},
		{outcome{took: time.Second, done: 1536, machine: true}, "1536,1,0:00:01.00,1536.000,1.000\n"},
		{outcome{took: time.Second, done: 1536, machine: true, quiet: true}, ""},
	} {
		if got := c.o.String(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// The texts are the reference's for lengths and offsets.
func TestHuman(t *testing.T) {
	t.Parallel()
	for n, want := range map[float64]string{
		0: "0 bytes", 1: "1 bytes", 1023: "1023 bytes", 568.281051: "568.281051 bytes",
		1024: "1 KiB", 1025: "1.001 KiB", 1536: "1.500 KiB", 10000: "9.766 KiB", 1048064: "1023.500 KiB",
		1 << 20: "1 MiB", 1049000: "1 MiB", 1500000: "1.431 MiB", 123456789: "117.738 MiB",
		1073741823: "1024 MiB", 1 << 30: "1 GiB", 1 << 40: "1 TiB", 1234567890123: "1.123 TiB", 1 << 50: "1 PiB", 1 << 62: "4 EiB",
		9223372036854775000: "8 EiB",
	} {
		if got := human(n); got != want {
			t.Errorf("%g: %q, want %q", n, got, want)
		}
	}
}
