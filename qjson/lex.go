package qjson

// The lexer cuts the input into tokens, whatever the pieces in which it
// arrives. Its state between two pieces is one lexState and the bytes of the
// unfinished token.

type lexState uint8

const (
	lexStart   lexState = iota
	lexDouble           // inside "…"
	lexSingle           // inside '…'
	lexDoubleE          // inside "…", behind a backslash
	lexSingleE          // inside '…', behind a backslash
	lexMinus            // -
	lexZero             // 0 or -0: neither digit nor exponent may follow (observed: 0e1 is 0, e, 1)
	lexInt              // digits
	lexDot              // a digit must follow
	lexFrac             // digits behind the dot
	lexE                // a digit or sign must follow
	lexESign            // a digit must follow
	lexExp              // digits of the exponent
	lexKeyword          // a-z
	lexRecover          // behind an error: skipping
)

// token kinds. Structural tokens are their own byte.
type token uint8

const (
	tokNone    token = 0 // the input ended before the token did
	tokError   token = 1 // a stray character
	tokString  token = 2
	tokInteger token = 3
	tokDouble  token = 4
	tokKeyword token = 5
	tokTooLong token = 6 // more than MaxTokenBytes
)

// class of a byte where a token begins.
type class uint8

const (
	classStray class = iota
	classSpace
	classStructure
	classDigit
	classLetter
	classMinus
	classZero
	classQuote
)

var classes = func() (t [256]class) {
	for _, c := range " \t\r\n" {
		t[c] = classSpace
	}
	for _, c := range "[]{}:," {
		t[c] = classStructure
	}
	for c := '1'; c <= '9'; c++ {
		t[c] = classDigit
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c] = classLetter
	}
	t['-'], t['0'], t['"'], t['\''] = classMinus, classZero, classQuote, classQuote
	return
}()

// ends tells the bytes which end the fast walk through a string: quotes,
// backslash, control characters, and FE and FF, which are errors everywhere.
var ends = func() (t [256]bool) {
	for c := range 0x20 {
		t[c] = true
	}
	t['"'], t['\''], t['\\'], t[0xFE], t[0xFF] = true, true, true, true, true
	return
}()

// resumes tells the bytes at which reading starts anew behind an error:
// structure, control characters other than TAB, FE and FF. Observed:
// transcripts protocol/recovery, protocol/malformed.
var resumes = func() (t [256]bool) {
	for c := range 0x20 {
		t[c] = c != '\t'
	}
	for _, c := range "[]{}:," {
		t[c] = true
	}
	t[0xFE], t[0xFF] = true, true
	return
}()

func digit(c byte) bool { return c-'0' < 10 }

// lexer is the state behind the last byte consumed.
type lexer struct {
	in      []byte // not yet consumed
	state   lexState
	partial []byte // beginning of a token that spans pieces of input
}

// next consumes input up to the end of a token and returns its bytes, which
// are valid until the next call. tokNone means that the input is used up.
func (l *lexer) next() (token, []byte) {
	in := l.in
	i := 0
	switch l.state {
	case lexStart:
		for i < len(in) && classes[in[i]] == classSpace {
			i++
		}
	case lexRecover:
		for i < len(in) && !resumes[in[i]] {
			i++
		}
		if i < len(in) {
			l.state = lexStart
			l.in = in[i:]
			return l.next()
		}
	}
	if i == len(in) {
		l.in = nil
		return tokNone, nil
	}
	start := i
	if l.state == lexStart {
		c := in[i]
		i++
		switch classes[c] {
		case classStructure:
			l.in = in[i:]
			return token(c), in[start:i]
		case classQuote:
			l.state = lexDouble
			if c == '\'' {
				l.state = lexSingle
			}
		case classDigit:
			l.state = lexInt
		case classZero:
			l.state = lexZero
		case classMinus:
			l.state = lexMinus
		case classLetter:
			l.state = lexKeyword
		default:
			return l.finish(tokError, start, i)
		}
	}
	switch l.state {
	case lexDouble, lexSingle, lexDoubleE, lexSingleE:
		return l.str(start, i)
	case lexKeyword:
		for i < len(in) && classes[in[i]] == classLetter {
			i++
		}
		if i == len(in) {
			return l.suspend(start)
		}
		return l.finish(tokKeyword, start, i)
	}
	return l.number(start, i)
}

// str goes on inside a string at in[i].
func (l *lexer) str(start, i int) (token, []byte) {
	in := l.in
	quote, inside, escaped := byte('"'), lexDouble, lexDoubleE
	if l.state == lexSingle || l.state == lexSingleE {
		quote, inside, escaped = '\'', lexSingle, lexSingleE
	}
	for i < len(in) {
		c := in[i]
		if !ends[c] && l.state == inside {
			i++
			continue
		}
		i++
		switch {
		case c < 0x20 || c >= 0xFE:
			return l.finish(tokError, start, i)
		case l.state == escaped:
			l.state = inside
		case c == '\\':
			l.state = escaped
		case c == quote:
			return l.finish(tokString, start, i)
		}
	}
	return l.suspend(start)
}

// number goes on inside a number at in[i]. The byte that ends a number is not
// part of it, unless it comes where a digit is needed.
func (l *lexer) number(start, i int) (token, []byte) {
	for ; i < len(l.in); i++ {
		c := l.in[i]
		switch l.state {
		case lexMinus:
			switch {
			case c == '0':
				l.state = lexZero
			case digit(c):
				l.state = lexInt
			default:
				return l.finish(tokError, start, i+1)
			}
		case lexZero, lexInt:
			switch {
			case c == '.':
				l.state = lexDot
			case (c == 'e' || c == 'E') && l.state == lexInt:
				l.state = lexE
			case !digit(c):
				return l.finish(tokInteger, start, i)
			case l.state == lexZero:
				return l.finish(tokError, start, i+1)
			}
		case lexDot:
			if !digit(c) {
				return l.finish(tokError, start, i+1)
			}
			l.state = lexFrac
		case lexFrac:
			switch {
			case c == 'e' || c == 'E':
				l.state = lexE
			case !digit(c):
				return l.finish(tokDouble, start, i)
			}
		case lexE:
			switch {
			case c == '+' || c == '-':
				l.state = lexESign
			case digit(c):
				l.state = lexExp
			default:
				return l.finish(tokError, start, i+1)
			}
		case lexESign:
			if !digit(c) {
				return l.finish(tokError, start, i+1)
			}
			l.state = lexExp
		case lexExp:
			if !digit(c) {
				return l.finish(tokDouble, start, i)
			}
		}
	}
	return l.suspend(start)
}

// suspend keeps the beginning of a token until more input comes.
func (l *lexer) suspend(start int) (token, []byte) {
	if l.excess(start, len(l.in)) {
		return tokTooLong, nil
	}
	l.partial = append(l.partial, l.in[start:]...)
	l.in = nil
	return tokNone, nil
}

// finish ends the token before in[end].
func (l *lexer) finish(t token, start, end int) (token, []byte) {
	if l.excess(start, end) {
		return tokTooLong, nil
	}
	text := l.in[start:end]
	if len(l.partial) > 0 {
		text = append(l.partial, text...)
		l.partial = text[:0]
		if cap(text) > keepText {
			l.partial = nil
		}
	}
	l.in = l.in[end:]
	l.state = lexStart
	if t == tokError {
		l.state = lexRecover
	}
	return t, text
}

// excess checks the length of the token that reaches to in[end]. One that is
// too long ends where it became so; reading goes on right behind.
func (l *lexer) excess(start, end int) bool {
	room := MaxTokenBytes - len(l.partial)
	if end-start <= room {
		return false
	}
	l.in = l.in[start+room+1:]
	l.state, l.partial = lexStart, nil
	return true
}

// flush ends the input: what is unfinished becomes a token.
func (l *lexer) flush() (token, []byte) {
	state, text := l.state, l.partial
	l.in, l.state, l.partial = nil, lexStart, l.partial[:0]
	switch state {
	case lexStart, lexRecover:
		return tokNone, nil
	case lexZero, lexInt:
		return tokInteger, text
	case lexFrac, lexExp:
		return tokDouble, text
	case lexKeyword:
		return tokKeyword, text
	}
	return tokError, text
}

// reset forgets everything.
func (l *lexer) reset() {
	l.in, l.state, l.partial = nil, lexStart, l.partial[:0]
}
