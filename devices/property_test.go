package devices

import (
	"testing"

	"github.com/qmpblock/qmpblock/qjson"
)

// TestRead compares with what -device said of each text (observed).
func TestRead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind           kind
		text, is, fail string
	}{
		{boolean, "on", "true", ""},
		{boolean, "y", "true", ""},
		{boolean, "no", "false", ""},
		{boolean, "ON", "", "Parameter 'p' expects 'on' or 'off'"},
		{boolean, "1", "", "Parameter 'p' expects 'on' or 'off'"},
		{boolean, "", "", "Parameter 'p' expects 'on' or 'off'"},
		{uint16Number, "0x2", "2", ""},
		{uint16Number, " +2", "2", ""},
		{uint16Number, "-1", "", "Parameter 'p' expects uint16_t"},
		{uint16Number, "65536", "", "Parameter 'p' expects uint16_t"},
		{uint16Number, "2k", "", "Parameter 'p' expects integer"},
		{uint16Number, "08", "", "Parameter 'p' expects integer"},
		{uint32Number, "4294967296", "", "Parameter 'p' expects uint32_t"},
		{int32Number, "-2", "-2", ""},
		{int32Number, "2147483648", "", "Parameter 'p' expects int32_t"},
		{int32Number, "x", "", "Parameter 'p' expects integer"},
		{blockSize, "0.5k", "512", ""},
		{blockSize, "4096b", "4096", ""},
		{blockSize, "3M", "", "parameter p must be a power of 2 between 512 and 2097152"},
		{blockSize, "4k2", "", "Parameter 'p' expects size"},
		{size, "8G", "", "Property owner.p doesn't take value 8589934592 (maximum: 4294967295)"},
		{onOffAuto, "auto", "auto", ""},
	} {
		v, err := qjson.Parse(qjson.AppendString(nil, c.text))
		if err != nil {
			t.Fatal(err)
		}
		p := &property{name: "p", kind: c.kind}
		var got string
		if v, err = p.read(v); err == nil {
			got, err = p.parse("owner", v)
		}
		switch {
		case err != nil && err.Error() != c.fail, err == nil && c.fail != "":
			t.Errorf("%q: got error %v, want %q", c.text, err, c.fail)
		case err == nil && got != c.is:
			t.Errorf("%q is %s, want %s", c.text, got, c.is)
		}
	}
}
