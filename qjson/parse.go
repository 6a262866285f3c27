package qjson

import (
	"bytes"
	"math"
	"strconv"

	"github.com/qmpblock/qmpblock/qerr"
)

// The limits of one text. Exceeding one is an error, and what follows is read
// as a new text. Observed on the reference.
const (
	MaxDepth      = 1024     // brackets and braces open at a time
	MaxTokens     = 2 << 20  // tokens
	MaxTokenBytes = 64 << 20 // characters in all tokens
)

// maxMessage is the length in bytes beyond which the reference cuts the text
// of a syntax error (that of a stray character is never cut).
const maxMessage = 1023

// want is what the grammar expects next.
type want uint8

const (
	wantValue        want = iota
	wantElementOrEnd      // behind [
	wantKeyOrEnd          // behind {
	wantKey               // behind a comma in an object
	wantColon
	wantCommaInArray
	wantCommaInObject
)

// frame is one open array or object.
type frame struct {
	node  uint32
	key   uint32 // node of the current member's name
	after want   // what follows the container in its parent
}

// Parser reads a stream of texts. Bytes go in with [Parser.Feed], values come
// out of [Parser.Next]; how the bytes are cut into pieces makes no difference.
// After an error the parser has already recovered: go on calling Next.
//
// The zero Parser is ready for use. In steady state it allocates nothing.
type Parser struct {
	lex lexer
	doc *Doc
	own Doc

	want             want
	stack            []frame
	err              *qerr.Error // first mistake of the current text
	started          bool        // the current text has a token
	braces, brackets int         // open ones; either may become negative
	tokens, size     int
}

// Use makes the parser store the next text in d instead of a Doc of its own.
// It may be called only between texts: before the first, or when Next has
// just returned a value or an error.
func (p *Parser) Use(d *Doc) { p.doc = d }

// Feed hands over input. All earlier input must have been used up: Next
// reported that it needs more. The parser reads b until then.
func (p *Parser) Feed(b []byte) { p.lex.in = b }

// Pending reports whether input is left that Next has not looked at yet, and
// that is more than white space.
func (p *Parser) Pending() bool {
	in := p.lex.in
	for len(in) > 0 && classes[in[0]] == classSpace {
		in = in[1:]
	}
	if p.lex.state == lexStart {
		p.lex.in = in
	}
	return len(in) > 0
}

// Reset forgets all input, finished and unfinished.
func (p *Parser) Reset() {
	p.lex.reset()
	p.restart()
}

// restart begins a new text.
func (p *Parser) restart() {
	if p.doc == nil {
		p.doc = &p.own
	}
	p.want, p.stack, p.err, p.started = wantValue, p.stack[:0], nil, false
	p.braces, p.brackets, p.tokens, p.size = 0, 0, 0, 0
}

// Next returns the next value (ok and no error), the next mistake (an error,
// always a *[qerr.Error]), or !ok when more input is needed. The value is
// valid until the next call, or if [Parser.Use] has given its Doc, until that
// is used again.
func (p *Parser) Next() (v Value, ok bool, err error) {
	for {
		t, text := p.lex.next()
		if t == tokNone {
			return Value{}, false, nil
		}
		if done, v, err := p.token(t, text); done {
			return v, true, err
		}
	}
}

// token takes one token; done when it completes the text or is a mistake that
// ends it.
func (p *Parser) token(t token, text []byte) (done bool, v Value, err error) {
	if !p.started {
		p.restart()
		p.doc.Reset()
		p.started = true
	}
	switch t {
	case tokError:
		p.started = false
		return true, v, stray(text)
	case tokTooLong:
		p.started = false
		return true, v, errTooLarge()
	case '{':
		p.braces++
	case '}':
		p.braces--
	case '[':
		p.brackets++
	case ']':
		p.brackets--
	}
	p.tokens++
	p.size += len(text)
	if err := p.overLimit(); err != nil {
		p.started = false
		return true, v, err
	}
	if p.err == nil {
		p.err = p.build(t, text)
	}
	// Kinds of brackets are counted apart: {] ends a text, {[} does not.
	if p.braces > 0 && p.brackets >= 0 || p.brackets > 0 && p.braces >= 0 {
		return false, v, nil
	}
	p.started = false
	if p.err != nil {
		return true, v, p.err
	}
	return true, Value{p.doc, 0}, nil
}

func (p *Parser) overLimit() error {
	switch {
	case p.size >= MaxTokenBytes:
		return errTooLarge()
	case p.tokens > MaxTokens:
		return qerr.New("JSON token count limit exceeded")
	case p.braces+p.brackets > MaxDepth:
		return qerr.New("JSON nesting depth limit exceeded")
	}
	return nil
}

// build adds a token to the document.
func (p *Parser) build(t token, text []byte) *qerr.Error {
	switch p.want {
	case wantColon:
		if t != ':' {
			return syntax("missing : in object pair")
		}
		p.want = wantValue
		return nil
	case wantCommaInObject:
		switch t {
		case ',':
			p.want = wantKey
		case '}':
			return p.closed()
		default:
			return syntax("expected separator in dict")
		}
		return nil
	case wantCommaInArray:
		switch t {
		case ',':
			p.want = wantValue
		case ']':
			return p.closed()
		default:
			return syntax("expected separator in list")
		}
		return nil
	case wantElementOrEnd:
		if t == ']' {
			return p.closed()
		}
	case wantKeyOrEnd:
		if t == '}' {
			return p.closed()
		}
	}
	return p.value(t, text)
}

// value adds a scalar or opens a container, where a value or a key may stand.
func (p *Parser) value(t token, text []byte) *qerr.Error {
	d := p.doc
	switch t {
	case '{':
		p.open(Object, wantKeyOrEnd)
		return nil
	case '[':
		p.open(Array, wantElementOrEnd)
		return nil
	case tokString:
		off := uint64(len(d.text))
		if err := d.unquote(text); err != nil {
			return err
		}
		i := d.add(String, off)
		d.nodes[i].n = uint32(uint64(len(d.text)) - off)
		return p.complete(i)
	case tokInteger:
		return p.complete(d.integer(text))
	case tokDouble:
		return p.complete(d.double(text))
	case tokKeyword:
		switch string(text) {
		case "true":
			return p.complete(d.add(Bool, 1))
		case "false":
			return p.complete(d.add(Bool, 0))
		case "null":
			return p.complete(d.add(Null, 0))
		}
		return syntax("invalid keyword '%s'", text)
	}
	return syntax("expecting value")
}

func (p *Parser) open(k Kind, inside want) {
	p.stack = append(p.stack, frame{node: p.doc.add(k, 0), after: p.want})
	p.want = inside
}

// closed ends the innermost container, which becomes a complete value.
func (p *Parser) closed() *qerr.Error {
	top := len(p.stack) - 1
	f := p.stack[top]
	p.stack = p.stack[:top]
	p.doc.nodes[f.node].end = uint32(len(p.doc.nodes))
	p.want = f.after
	return p.complete(f.node)
}

// complete puts the finished value in node i into the container around it.
func (p *Parser) complete(i uint32) *qerr.Error {
	if len(p.stack) == 0 {
		return nil
	}
	f := &p.stack[len(p.stack)-1]
	if p.want == wantKey || p.want == wantKeyOrEnd {
		if p.doc.nodes[i].kind != String {
			return syntax("key is not a string in object")
		}
		f.key = i
		p.want = wantColon
		return nil
	}
	if p.doc.nodes[f.node].kind == Array {
		p.doc.nodes[f.node].n++
		p.want = wantCommaInArray
		return nil
	}
	if !p.doc.addMember(f.node, f.key) {
		return syntax("duplicate key")
	}
	p.want = wantCommaInObject
	return nil
}

// integer adds an integer in the narrowest kind that holds it exactly.
func (d *Doc) integer(text []byte) uint32 {
	if u, ok := decimal(text); ok {
		return d.add(Int, u)
	}
	if i, err := strconv.ParseInt(string(text), 10, 64); err == nil {
		return d.add(Int, uint64(i))
	}
	if u, err := strconv.ParseUint(string(text), 10, 64); err == nil {
		return d.add(Uint, u)
	}
	return d.double(text)
}

// decimal converts what certainly fits without a string: up to 18 digits.
func decimal(text []byte) (uint64, bool) {
	neg := text[0] == '-'
	if neg {
		text = text[1:]
	}
	if len(text) > 18 {
		return 0, false
	}
	var u uint64
	for _, c := range text {
		u = u*10 + uint64(c-'0')
	}
	if neg {
		u = -u
	}
	return u, true
}

// double adds a number as a double, infinite when it is too large.
func (d *Doc) double(text []byte) uint32 {
	f, _ := strconv.ParseFloat(string(text), 64)
	return d.add(Double, math.Float64bits(f))
}

func errTooLarge() error { return qerr.New("JSON token size limit exceeded") }

func syntax(format string, args ...any) *qerr.Error {
	e := qerr.New(format, args...)
	e.Desc = "JSON parse error, " + e.Desc[:min(len(e.Desc), maxMessage)]
	return e
}

// stray is the error for a character that fits nowhere. The reference quotes
// the token as a C string.
func stray(text []byte) *qerr.Error {
	if i := bytes.IndexByte(text, 0); i >= 0 {
		text = text[:i]
	}
	return qerr.New("JSON parse error, stray '%s'", text)
}

// Parse reads text, which must be exactly one value, into a Doc of its own.
func Parse(text []byte) (Value, error) {
	var p Parser
	p.Feed(text)
	v, ok, err := p.Next()
	if err != nil {
		return Value{}, err
	}
	if !ok {
		return p.end()
	}
	p.Use(new(Doc))
	if _, more, _ := p.Next(); more {
		return Value{}, errTooMany()
	}
	if t, _ := p.lex.flush(); t != tokNone || p.started {
		return Value{}, errTooMany()
	}
	return v, nil
}

func errTooMany() error { return qerr.New("Expecting at most one JSON value") }

// end is Next at the end of all input: a number or keyword may be complete,
// everything else that was begun is cut short.
func (p *Parser) end() (Value, error) {
	if t, text := p.lex.flush(); t != tokNone {
		if done, v, err := p.token(t, text); done {
			return v, err
		}
	}
	switch {
	case !p.started:
		return Value{}, qerr.New("Expecting a JSON value")
	case p.err != nil:
		return Value{}, p.err
	}
	return Value{}, syntax("premature EOI")
}
