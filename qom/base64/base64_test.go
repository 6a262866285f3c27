package base64

import (
	"encoding/base64"
	"testing"

	"pgregory.net/rapid"
)

// TestDecode has what the reference makes of each text.
func TestDecode(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "", "a": "", "aGVsbG8": "hel", "aGVsbG8=": "hello", "aGVsbG8==": "hello", "aGVsbG8=x": "hello",
		"aGVsbG8=eHl6": "helloxyz", "aGVs\nbG8=\n": "hello", "aG=s": "h,", "====": "\x00", "=a==": "\x01", "=\n=": "",
	} {
		if got, err := Decode([]byte(in)); err != nil || string(got) != want {
			t.Errorf("Decode(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"***": "Base64 data contains invalid characters", " ": "Base64 data contains invalid characters",
		"aGVs\r\nbG8=": "Base64 data contains invalid characters", "a-": "Base64 data contains invalid characters",
		"AAA\x00": "Base64 data contains embedded NUL characters",
	} {
		if got, err := Decode([]byte(in)); err == nil || err.Error() != want {
			t.Errorf("Decode(%q) = %q, %v; want %s", in, got, err, want)
		}
	}
}

func TestDecodeEncoded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		data := rapid.SliceOf(rapid.Byte()).Draw(t, "data")
		got, err := Decode([]byte(base64.StdEncoding.EncodeToString(data)))
		if err != nil || string(got) != string(data) {
			t.Fatalf("%q, %v; want %q", got, err, data)
		}
	})
}
