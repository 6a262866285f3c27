package keyval

// nameLen returns the length of the QAPI name that s starts with, 0 if none:
// a letter, then letters, digits, '-' and '_'. A name of a vendor has a prefix
// of two underscores, a domain and one more underscore: __com.redhat_drive.
// The domain ends at the first underscore and may be empty (observed:
// "___a=1" is taken).
func nameLen(s string) int {
	n := 0
	if len(s) >= 2 && s[:2] == "__" {
		n = 2 + span(s[2:], inDomain)
		if n == len(s) || s[n] != '_' {
			return 0
		}
		n++
	}
	if n == len(s) || !isLetter(s[n]) {
		return 0
	}
	return n + span(s[n:], inName)
}

// IsIdentifier tells whether s may be the id of an object or a character
// device: a letter, then letters, digits, '-', '.' and '_'.
func IsIdentifier(s string) bool {
	return s != "" && isLetter(s[0]) && span(s, inIdentifier) == len(s)
}

// span returns the length of the prefix of s whose bytes are all of one kind.
func span(s string, is func(byte) bool) int {
	n := 0
	for n < len(s) && is(s[n]) {
		n++
	}
	return n
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }

func inName(c byte) bool       { return isLetter(c) || isDigit(c) || c == '-' || c == '_' }
func inDomain(c byte) bool     { return isLetter(c) || isDigit(c) || c == '-' || c == '.' }
func inIdentifier(c byte) bool { return inName(c) || c == '.' }
