package qjson

import (
	"math"
	"strings"
	"testing"
)

func TestPretty(t *testing.T) {
	t.Parallel()
	v, err := Parse([]byte(`{"id":{"b":[],"a":{},"c":[1,[2]]},"text":"{\"x\": [1, 2]}"}`))
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		`{`,
		`    "text": "{\"x\": [1, 2]}",`,
		`    "id": {`,
		`        "a": {`,
		`        },`,
		`        "b": [`,
		`        ],`,
		`        "c": [`,
		`            1,`,
		`            [`,
		`                2`,
		`            ]`,
		`        ]`,
		`    }`,
		`}`,
	}, "\n")
	if got := string(AppendPretty(nil, AppendValue(nil, v))); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestDoubles(t *testing.T) {
	t.Parallel()
	for f, want := range map[float64]string{
		0: "0", 1: "1", 100: "100", 0.1: "0.10000000000000001", 1e-7: "9.9999999999999995e-08",
		-2.25: "-2.25", 1e308: "1e+308", 1e17: "1e+17", 1e16: "10000000000000000", 1e23: "9.9999999999999992e+22",
		123456789.125: "123456789.125", 5e-324: "4.9406564584124654e-324", 0.0001: "0.0001", 0.00001: "1.0000000000000001e-05",
		math.Inf(1): "inf", math.Inf(-1): "-inf", math.Copysign(0, -1): "-0",
		1 << 53: "9007199254740992", 1.7976931348623157e308: "1.7976931348623157e+308", 120: "120", 12.5: "12.5",
	} {
		if got := string(AppendDouble(nil, f)); got != want && !(f == 0 && got == "-0") {
			t.Errorf("%v: got %s, want %s", f, got, want)
		}
	}
}
