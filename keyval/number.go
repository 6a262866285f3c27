package keyval

import (
	"errors"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"syscall"
)

// The three mistakes that a number can contain. They are system errors
// because every caller has its own words for them: ErrSyntax is text that is
// no number, ErrRange is a number that does not fit.
const (
	ErrSyntax = syscall.EINVAL
	ErrRange  = syscall.ERANGE
)

// ParseBool reads on, off and their synonyms yes, no, true, false, y, n; ok is
// false for anything else. Capital letters are not accepted.
func ParseBool(s string) (value, ok bool) {
	switch s {
	case "on", "yes", "true", "y":
		return true, true
	case "off", "no", "false", "n":
		return false, true
	}
	return false, false
}

// ParseInt reads a signed integer as C's strtoll does with base 0: leading
// white space, a sign, hexadecimal with 0x and octal with 0. The error is
// [ErrSyntax] or [ErrRange].
func ParseInt(s string) (int64, error) {
	u, negative, err := parseMagnitude(s)
	switch {
	case err != nil:
		return 0, err
	case negative && u <= 1<<63:
		return int64(-u), nil
	case negative || u > math.MaxInt64:
		return 0, ErrRange
	}
	return int64(u), nil
}

// ParseUint reads an unsigned integer in the notation of [ParseInt]. As with
// C's strtoull a negative one is taken modulo 2^64. The error is [ErrSyntax]
// or [ErrRange].
func ParseUint(s string) (uint64, error) {
	u, negative, err := parseMagnitude(s)
	if negative {
		u = -u
	}
	return u, err
}

func parseMagnitude(s string) (u uint64, negative bool, err error) {
	s = strings.TrimLeft(s, " \t\n\v\f\r")
	if s != "" && (s[0] == '-' || s[0] == '+') {
		negative = s[0] == '-'
		s = s[1:]
	}
	base := 10
	switch {
	case hasHexPrefix(s):
		s, base = s[2:], 16
	case strings.HasPrefix(s, "0"):
		base = 8
	}
	u, err = parseDigits(s, base)
	return u, negative, err
}

// parseDigits wants digits and nothing else.
func parseDigits(s string, base int) (uint64, error) {
	if s == "" || s[0] == '+' || s[0] == '-' {
		return 0, ErrSyntax
	}
	u, err := strconv.ParseUint(s, base, 64)
	switch {
	case err == nil:
		return u, nil
	case errors.Is(err, strconv.ErrRange) && span(s, digitOf(base)) == len(s):
		return 0, ErrRange
	}
	return 0, ErrSyntax
}

// digitOf returns what a digit is in base 8, 10 or 16.
func digitOf(base int) func(byte) bool {
	return func(c byte) bool {
		_, err := strconv.ParseUint(string(c), base, 8)
		return err == nil
	}
}

func hasHexPrefix(s string) bool {
	return len(s) > 1 && s[0] == '0' && s[1]|0x20 == 'x'
}

// ParseSize reads a number of bytes: decimal with an optional fraction and
// one of the suffixes B, k, M, G, T, P, E (powers of 1024, either case), or
// hexadecimal without either. A fraction is rounded to the nearest byte, and
// needs a suffix above B unless it is zero. The error is [ErrSyntax], or
// [ErrRange] for a size of 2^64 and more and for a negative whole number.
// Observed: option size of ringbuf character devices and of memory backends.
func ParseSize(s string) (uint64, error) {
	s = strings.TrimLeft(s, " \t\n\v\f\r")
	if digits, ok := strings.CutPrefix(s, "-"); ok {
		if digits == "" || span(digits, isDigit) < len(digits) {
			return 0, ErrSyntax
		}
		return 0, ErrRange
	}
	s = strings.TrimPrefix(s, "+")
	if hasHexPrefix(s) {
		return parseDigits(s[2:], 16)
	}
	n := span(s, isDigit)
	if n == len(s) {
		return parseDigits(s, 10)
	}
	fraction, suffix := cutFraction(s[n:])
	shift, ok := sizeShift(suffix)
	if !ok || n == 0 && len(fraction) < 2 {
		return 0, ErrSyntax
	}
	return scale(s[:n], fraction, shift)
}

// cutFraction splits a point and the digits behind it from the start of s.
func cutFraction(s string) (fraction, rest string) {
	if !strings.HasPrefix(s, ".") {
		return "", s
	}
	n := 1 + span(s[1:], isDigit)
	return s[:n], s[n:]
}

// sizeShift returns the power of two that a suffix stands for.
func sizeShift(suffix string) (shift uint, ok bool) {
	if suffix == "" {
		return 0, true
	}
	i := strings.IndexByte("BKMGTPE", suffix[0]&^0x20)
	return uint(10 * i), i >= 0 && len(suffix) == 1
}

// scale computes (whole + fraction) * 2^shift. A whole beyond 2^64 is a
// mistake of syntax here, as in the reference.
func scale(whole, fraction string, shift uint) (uint64, error) {
	u, err := parseDigits("0"+whole, 10)
	if err != nil {
		return 0, ErrSyntax
	}
	f, err := strconv.ParseFloat("0"+fraction, 64)
	if err != nil || f != 0 && shift == 0 {
		return 0, ErrSyntax
	}
	high, low := bits.Mul64(u, 1<<shift)
	sum, carry := bits.Add64(low, uint64(f*float64(uint64(1)<<shift)+0.5), 0)
	if high != 0 || carry != 0 {
		return 0, ErrRange
	}
	return sum, nil
}
