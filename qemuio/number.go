package qemuio

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/qmpblock/qmpblock/keyval"
)

// number reads a number of bytes below 2^63; if it cannot, it prints why.
func (s *Session) number(arg string) (n int64, ok bool) {
	n, err := parseNumber(arg)
	if err == nil {
		return n, true
	}
	s.badNumber(err, arg)
	return 0, false
}

func (s *Session) badNumber(err error, arg string) {
	if errors.Is(err, keyval.ErrRange) {
		s.printf("Parsing error: argument too large -- %s\n", arg)
		return
	}
	s.printf("Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- %s\n", arg)
}

func parseNumber(arg string) (int64, error) {
	n, err := keyval.ParseSize(arg)
	if err == nil && n > math.MaxInt64 {
		err = keyval.ErrRange
	}
	return int64(n), err
}

// pattern reads a byte.
func (s *Session) pattern(arg string) (b byte, ok bool) {
	n, err := keyval.ParseInt(arg)
	if err != nil || n < 0 || n > math.MaxUint8 {
		s.printf("%s is not a valid pattern byte\n", arg)
		return 0, false
	}
	return byte(n), true
}

// human shows a number of bytes in the largest unit of 1024 that fits, with
// three decimals unless they are zero; below 1 KiB as it is.
func human(n float64) string {
	const units = "KMGTPE"
	for i := len(units) - 1; i >= 0; i-- {
		if unit := float64(int64(1) << (10 * (i + 1))); n >= unit {
			return strings.TrimSuffix(strconv.FormatFloat(n/unit, 'f', 3, 64), ".000") + " " + units[i:i+1] + "iB"
		}
	}
	return strings.TrimSuffix(strconv.FormatFloat(n, 'f', 6, 64), ".000000") + " bytes"
}
