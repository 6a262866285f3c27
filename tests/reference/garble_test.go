package reference

import "math/rand/v2"

// bits is what gets into texts: what JSON is made of, and what it is not.
var bits = []string{
	"{", "}", "[", "]", ":", ",", "\"", "'", "\\", "\n", "\t", " ", "\r", "\x00", "\x01", "\x1f", "\x7f", "\xff", "\xfe", "\xc0\x80",
	"\xc3\xa4", "\xe2\x82", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xef\xbb\xbf", "\\u0000", "\\u00e4", "\\ud83d", "\\ud83d\\ude00",
	"\\uffff", "\\x", "\\u12", "0", "1", "-", "+", ".", "e", "1e400", "-0", "01", "18446744073709551616", "null", "true", "nul", "True",
	"[]", "{}", "\"a\":1", "a", "$", "//", ";", "(", "%", "\v", "\f",
}

// garble changes a text at a few places.
func garble(r *rand.Rand, text string) string {
	for range 1 + r.IntN(3) {
		at := r.IntN(len(text) + 1)
		to := min(len(text), at+r.IntN(4))
		switch r.IntN(5) {
		case 0: // take out
			text = text[:at] + text[to:]
		case 1: // put in
			text = text[:at] + pick(r, bits...) + text[at:]
		case 2: // replace
			text = text[:at] + pick(r, bits...) + text[to:]
		case 3: // repeat
			text = text[:to] + text[at:]
		case 4: // any byte
			text = text[:at] + string([]byte{byte(r.IntN(256))}) + text[at:]
		}
	}
	return text
}

// cut cuts a text in pieces.
func cut(r *rand.Rand, text string) []string {
	var pieces []string
	for r.IntN(3) == 0 && len(text) > 1 {
		at := 1 + r.IntN(len(text)-1)
		pieces = append(pieces, text[:at])
		text = text[at:]
	}
	return append(pieces, text)
}
