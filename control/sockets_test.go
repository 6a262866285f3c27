package control

import (
	"testing"

	"github.com/qmpblock/qmpblock/schema"
)

// TestSocketAddress converts the same addresses in both notations.
func TestSocketAddress(t *testing.T) {
	t.Parallel()
	inet := schema.InetSocketAddress{Host: "h", Port: "1", To: new(uint16(2)), Mptcp: new(true)}
	path := schema.UnixSocketAddress{Path: "p", Abstract: new(true)}
	vsock := schema.VsockSocketAddress{Cid: "2", Port: "3"}
	fd := schema.FdSocketAddress{Str: "4"}
	for _, k := range []struct {
		flat    schema.SocketAddressVariant
		wrapped schema.SocketAddressLegacyVariant
		want    string
	}{
		{&inet, &schema.InetSocketAddressWrapper{Data: inet}, `{"port": "1", "mptcp": true, "host": "h", "to": 2, "type": "inet"}`},
		{&path, &schema.UnixSocketAddressWrapper{Data: path}, `{"abstract": true, "path": "p", "type": "unix"}`},
		{&vsock, &schema.VsockSocketAddressWrapper{Data: vsock}, `{"port": "3", "cid": "2", "type": "vsock"}`},
		{&fd, &schema.FdSocketAddressWrapper{Data: fd}, `{"str": "4", "type": "fd"}`},
	} {
		got, err := socketAddress(&schema.SocketAddress{Variant: k.flat}).AppendJSON(nil)
		if err != nil || string(got) != k.want {
			t.Errorf("%s, %v, want %s", got, err, k.want)
		}
		got, err = socketAddressLegacy(&schema.SocketAddressLegacy{Variant: k.wrapped}).AppendJSON(nil)
		if err != nil || string(got) != k.want {
			t.Errorf("legacy: %s, %v, want %s", got, err, k.want)
		}
	}
}
