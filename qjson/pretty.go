package qjson

import "bytes"

// AppendPretty appends a text in output format as a monitor with pretty=on
// prints it: every member and element on a line of its own, four spaces for
// each level, no exception for empty containers; lines end in LF. compact
// must be what the other Append functions of this package write.
func AppendPretty(dst, compact []byte) []byte {
	level := 0
	for i := 0; i < len(compact); i++ {
		switch c := compact[i]; c {
		case '{', '[':
			level++
			dst = appendIndent(append(dst, c), level)
			if next := compact[i+1]; next == '}' || next == ']' {
				// The line for the content stays out when there is none.
				dst = dst[:len(dst)-indent*level-1]
			}
		case '}', ']':
			level--
			dst = append(appendIndent(dst, level), c)
		case ',':
			dst = appendIndent(append(dst, c), level)
			i++ // the space behind
		case '"':
			n := literal(compact[i:])
			dst = append(dst, compact[i:i+n]...)
			i += n - 1
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// indent is the number of spaces for each level.
const indent = 4

var spaces = bytes.Repeat([]byte{' '}, 64)

func appendIndent(dst []byte, level int) []byte {
	dst = append(dst, '\n')
	for n := level * indent; n > 0; n -= len(spaces) {
		dst = append(dst, spaces[:min(n, len(spaces))]...)
	}
	return dst
}

// literal returns the length of the string literal at the start of s.
func literal(s []byte) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(s)
}
