package keyval

import (
	"math"
	"testing"
)

func TestParseSize(t *testing.T) {
	t.Parallel()
	good := map[string]uint64{
		"0": 0, "5": 5, " 5": 5, "\t5": 5, "+8": 8, "010": 10, "010k": 10240,
		"1k": 1 << 10, "1K": 1 << 10, "2M": 2 << 20, "3G": 3 << 30, "4T": 4 << 40, "5P": 5 << 50, "6E": 6 << 60, "7B": 7, "7b": 7,
		"0x10": 16, "0X10": 16, "0x10B": 0x10b,
		"1.": 1, "1.0": 1, "1.0b": 1, "8.k": 8192, ".5k": 512, "1.5k": 1536, "+0.5k": 512,
		"1.9999k": 2048, "1.0001k": 1024, "1.0005k": 1025, "0.1G": 107374182, "1.00048828125k": 1025,
		"1.000488281249k": 1024, "0.99999999999999999999k": 1024, "1.99999999999999999999k": 2048,
		"18446744073709551615": math.MaxUint64, "0xffffffffffffffff": math.MaxUint64,
		"18014398509481983k": math.MaxUint64 - 1023,
	}
	for in, want := range good {
		if got, err := ParseSize(in); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	bad := map[string]error{
		"": ErrSyntax, "abc": ErrSyntax, "5 ": ErrSyntax, "5kk": ErrSyntax, "5x": ErrSyntax, "0x": ErrSyntax, "0x1k": ErrSyntax,
		"0x8.8": ErrSyntax, "1e3": ErrSyntax, "1.8e1k": ErrSyntax, "1.5": ErrSyntax, "1.5b": ErrSyntax, ".": ErrSyntax, ".k": ErrSyntax,
		"nan": ErrSyntax, "1.infk": ErrSyntax, "1. 5k": ErrSyntax, "- 5": ErrSyntax, "-": ErrSyntax, "-5k": ErrSyntax, "-0x5": ErrSyntax,
		"-.5k": ErrSyntax, "+-4": ErrSyntax, "1_000": ErrSyntax,
		"99999999999999999999x": ErrSyntax, "1844674407370955161600k": ErrSyntax,
		"-0": ErrRange, " -8": ErrRange, "-99999999999999999999": ErrRange, "99999999999999999999": ErrRange, "16E": ErrRange,
		"17179869184G": ErrRange, "15.99999999999999999999E": ErrRange, "0x10000000000000000": ErrRange,
	}
	for in, want := range bad {
		if got, err := ParseSize(in); err != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %v", in, got, err, want)
		}
	}
}

func TestParseIntegers(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{
		"0": 0, "5": 5, " 5": 5, "+5": 5, "-5": -5, "0x10": 16, "-0x5": -5, "010": 8, "-0": 0,
		"9223372036854775807": math.MaxInt64, "-9223372036854775808": math.MinInt64,
	} {
		if got, err := ParseInt(in); err != nil || got != want {
			t.Errorf("ParseInt(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for in, want := range map[string]error{
		"": ErrSyntax, "5 ": ErrSyntax, "1k": ErrSyntax, "0x": ErrSyntax, "0b1": ErrSyntax, "- 5": ErrSyntax, "1.0": ErrSyntax, "08": ErrSyntax,
		"--5": ErrSyntax, "9223372036854775808": ErrRange, "-9223372036854775809": ErrRange, "99999999999999999999": ErrRange,
	} {
		if got, err := ParseInt(in); err != want {
			t.Errorf("ParseInt(%q) = %d, %v; want %v", in, got, err, want)
		}
	}
	for in, want := range map[string]uint64{"18446744073709551615": math.MaxUint64, "-1": math.MaxUint64, "-18446744073709551615": 1} {
		if got, err := ParseUint(in); err != nil || got != want {
			t.Errorf("ParseUint(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for in, want := range map[string]error{"18446744073709551616": ErrRange, "-18446744073709551616": ErrRange, "0x99999999999999999999g": ErrSyntax} {
		if got, err := ParseUint(in); err != want {
			t.Errorf("ParseUint(%q) = %d, %v; want %v", in, got, err, want)
		}
	}
}

func TestParseBool(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]bool{"on": true, "yes": true, "true": true, "y": true, "off": false, "no": false, "false": false, "n": false} {
		if got, ok := ParseBool(in); !ok || got != want {
			t.Errorf("ParseBool(%q) = %v, %v", in, got, ok)
		}
	}
	for _, in := range []string{"", "On", "ON", "1", "0", "t", "maybe"} {
		if _, ok := ParseBool(in); ok {
			t.Errorf("ParseBool(%q) is accepted", in)
		}
	}
}
