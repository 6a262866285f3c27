package nbd_test

import (
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/drivers/nbd"
)

// TestParseFilename is what the reference makes of names (observed: qemu-img
// info).
func TestParseFilename(t *testing.T) {
	t.Parallel()
	const (
		badURL = "No valid URL specified"
		inet   = "server.type=inet server.host="
		unix   = "server.type=unix server.path="
	)
	for name, want := range map[string]string{
		"nbd+unix:///?socket=s":           unix + "s",
		"nbd+unix://?socket=s":            unix + "s",
		"nbd+unix:///e?socket=s":          unix + "s export=e",
		"nbd+unix:///a/b?socket=s":        unix + "s export=a/b",
		"nbd+unix:///%41b?socket=%2ftmp":  unix + "/tmp export=Ab",
		"nbd+unix:///a?socket=":           unix + " export=a",
		"nbd+unix:///a?socket=s#f":        unix + "s export=a",
		"nbd+unix:///a?socket=s&socket=t": unix + "t export=a",
		"nbd+unix:///?socket=s&foo=1":     badURL,
		"nbd+unix://x/?socket=s":          badURL,
		"nbd+unix:///":                    badURL,
		"nbd+unix:///a?foo=bar":           badURL,
		"nbd+unix:///a#f?socket=s":        badURL,
		"nbd+unix:///a?socket":            badURL,
		"nbd+unix:/x?socket=s":            "File name string for NBD must start with 'nbd:'",
		"nbd://h":                         inet + "h server.port=10809",
		"nbd://h:/":                       inet + "h server.port=10809",
		"nbd://h:0/":                      inet + "h server.port=10809",
		"nbd+tcp://h:1":                   inet + "h server.port=1",
		"nbd://[::1]:1/x":                 inet + "::1 server.port=1 export=x",
		"nbd://h:1//a/b":                  inet + "h server.port=1 export=/a/b",
		"nbd:///":                         badURL,
		"nbd://":                          badURL,
		"nbd://h:1/x?a=b":                 badURL,
		"nbd://h:1/x?socket=foo":          badURL,
		"nbd://h:99999/":                  badURL,
		"nbd://h:abc/":                    badURL,
		"nbd://h:1/%zz":                   badURL,
		"nbd:":                            "",
		"nbd:foo":                         "error parsing address 'foo'",
		"nbd:foo:":                        "error parsing address 'foo:'",
		"nbd:foo:abc":                     inet + "foo server.port=abc",
		"nbd::10809":                      inet + " server.port=10809",
		"nbd:h:1:":                        inet + "h server.port=1:",
		"nbd:h:1,ipv4":                    inet + "h server.port=1",
		"nbd:[::1]:1":                     inet + "::1 server.port=1",
		"nbd:::1:1":                       inet + " server.port=:1:1",
		"nbd:h:1:exportname=x:y":          inet + "h server.port=1 export=x:y",
		"nbd:h:1:exportname=":             "",
		"nbd:unix:":                       unix,
		"nbd:unix:/s":                     unix + "/s",
		"nbd:unix:/s:foo":                 unix + "/s:foo",
		"nbd:unix:/s:exportname=a:b":      unix + "/s export=a:b",
		"nbd:unix:/s:exportname=":         "",
		"nbdx":                            "File name string for NBD must start with 'nbd:'",
	} {
		o := block.NewOptions()
		err := nbd.Driver().ParseFilename(name, o)
		var got []string
		for _, key := range []string{"server.type", "server.path", "server.host", "server.port", "export"} {
			if o.Has(key) {
				got = append(got, key+"="+o.GetString(key))
			}
		}
		if err != nil {
			got = []string{err.Error()}
		}
		if text := strings.Join(got, " "); text != want {
			t.Errorf("%s: %q, want %q", name, text, want)
		}
	}
}
