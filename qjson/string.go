package qjson

import (
	"bytes"
	"strconv"
	"unicode/utf16"

	"github.com/qmpblock/qmpblock/qerr"
)

// clean tells the bytes which a string literal holds as they are: ASCII but
// the backslash. (Control characters never get here.)
var clean = func() (t [256]bool) {
	for c := range 0x80 {
		t[c] = c != '\\'
	}
	return
}()

// unquote appends the characters of a string literal, quotes included in
// lit, to the Doc.
func (d *Doc) unquote(lit []byte) *qerr.Error {
	s := lit[1 : len(lit)-1]
	i := 0
	for i < len(s) && clean[s[i]] {
		i++
	}
	d.text = append(d.text, s[:i]...)
	for i < len(s) {
		c := s[i]
		switch {
		case clean[c]:
			d.text = append(d.text, c)
			i++
		case c == '\\':
			n, err := d.escape(lit[i+1:])
			if err != nil {
				return err
			}
			i += n
		default:
			r, n := decode(s[i:])
			if r < 0 {
				return syntax("invalid UTF-8 sequence in string")
			}
			d.text = appendModified(d.text, r)
			i += n
		}
	}
	return nil
}

// escape appends the character that an escape sequence stands for and returns
// its length. s reaches to the closing quote, which the reference quotes in
// the error for a sequence that is too short.
func (d *Doc) escape(s []byte) (int, *qerr.Error) {
	switch c := s[1]; c {
	case '"', '\'', '\\', '/':
		d.text = append(d.text, c)
	case 'b':
		d.text = append(d.text, '\b')
	case 'f':
		d.text = append(d.text, '\f')
	case 'n':
		d.text = append(d.text, '\n')
	case 'r':
		d.text = append(d.text, '\r')
	case 't':
		d.text = append(d.text, '\t')
	case 'u':
		return d.unicode(s)
	default:
		return 0, syntax("invalid escape sequence in string")
	}
	return 2, nil
}

func (d *Doc) unicode(s []byte) (int, *qerr.Error) {
	r, ok := hex4(s)
	n := 6
	if !ok {
		return 0, notUnicode(s, n)
	}
	if utf16.IsSurrogate(r) {
		low, ok := hex4(s[n:])
		if !ok {
			return 0, notUnicode(s, n)
		}
		r = utf16.DecodeRune(r, low)
		if r == 0xFFFD {
			return 0, notUnicode(s, n)
		}
		n = 12
	}
	if noncharacter(r) {
		return 0, notUnicode(s, n)
	}
	d.text = appendModified(d.text, r)
	return n, nil
}

// hex4 reads \uXXXX at the start of s.
func hex4(s []byte) (rune, bool) {
	if len(s) < 6 || !bytes.HasPrefix(s, []byte(`\u`)) {
		return 0, false
	}
	u, err := strconv.ParseUint(string(s[2:6]), 16, 16)
	return rune(u), err == nil
}

func notUnicode(s []byte, n int) *qerr.Error {
	return syntax("%s is not a valid Unicode character", s[:min(n, len(s))])
}
