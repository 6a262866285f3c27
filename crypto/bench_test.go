package crypto

import (
	"fmt"
	"testing"
)

// BenchmarkVolume is how fast sectors are encrypted and decrypted, in requests
// of several lengths.
func BenchmarkVolume(b *testing.B) {
	alg, _ := algorithmNamed("aes-256")
	for _, c := range []struct{ mode, iv string }{{modeXTS, ivPlain64}, {modeCBC, ivESSIV}, {modeCTR, ivPlain64}} {
		s := suite{alg: alg, mode: c.mode, iv: c.iv, ivHash: &digests[3]}
		v, err := newVolume(s, make([]byte, s.keySize()))
		if err != nil {
			b.Fatal(err)
		}
		for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
			buf := make([]byte, size)
			for dir, f := range map[string]func([]byte, int64){"encrypt": v.Encrypt, "decrypt": v.Decrypt} {
				b.Run(fmt.Sprintf("%s-%s/%d/%s", c.mode, c.iv, size, dir), func(b *testing.B) {
					b.SetBytes(int64(size))
					b.ReportAllocs()
					for b.Loop() {
						f(buf, 0)
					}
				})
			}
		}
	}
}
