package keyval

import (
	"fmt"
	"slices"
	"strings"

	"github.com/qmpblock/qmpblock/qerr"
)

// OptType says what an option's text must look like.
type OptType uint8

// The types of options. The zero value takes any text.
const (
	OptString OptType = iota
	OptBool           // on or off, see ParseBool
	OptNumber         // see ParseUint
	OptSize           // see ParseSize
)

var optTypeNames = [...]string{"str", "bool (on/off)", "num", "size"}

// OptDesc describes one option.
type OptDesc struct {
	Name string
	Type OptType
	Help string // one line, may be empty
}

// OptsList describes a flat list of options in the older notation.
type OptsList struct {
	// Implied is the key of a first value that comes without one; "" if
	// there is none.
	Implied string
	Options []OptDesc
	// WarnShortForm makes Parse warn of "server" and "nowait" where
	// "server=on" and "wait=off" are meant.
	WarnShortForm bool
}

// Opts are options that were given and found correct.
type Opts struct {
	// ID is the value of the first "id", which every list takes; HasID tells
	// whether there was one.
	ID    string
	HasID bool
	// Help tells that "help" or "?" stood among the options; what follows
	// was not looked at.
	Help bool
	// Warnings are lines for the user, without the word "warning".
	Warnings []string

	values map[string]string
}

// Parse checks a text of options against the list. Opts is never nil, so that
// its warnings can be printed before the error.
//
// Errors are the reference's (observed: transcript cli/monitor-errors).
func (l *OptsList) Parse(params string) (*Opts, error) {
	o := &Opts{values: map[string]string{}}
	if err := o.setID(params); err != nil {
		return o, err
	}
	for _, it := range split(params, l.Implied) {
		if it.short && (it.text == "help" || it.text == "?") {
			o.Help = true
			break
		}
		if it.short && l.WarnShortForm {
			o.Warnings = append(o.Warnings, fmt.Sprintf(
				"short-form boolean option '%s' deprecated\nPlease use %s=%s instead", it.text, it.key, it.value))
		}
		if it.key == "id" {
			continue
		}
		if err := l.check(it.key, it.value); err != nil {
			return o, err
		}
		o.values[it.key] = it.value
	}
	return o, nil
}

// Has tells whether an option was given.
func (o *Opts) Has(name string) bool {
	_, ok := o.values[name]
	return ok
}

// Str returns the text of an option, "" if it was not given.
func (o *Opts) Str(name string) string { return o.values[name] }

// Bool returns an option of type OptBool, fallback if it was not given.
func (o *Opts) Bool(name string, fallback bool) bool {
	if v, ok := ParseBool(o.values[name]); ok {
		return v
	}
	return fallback
}

// Number returns an option of type OptNumber, fallback if it was not given.
func (o *Opts) Number(name string, fallback uint64) uint64 {
	if v, err := ParseUint(o.values[name]); err == nil {
		return v
	}
	return fallback
}

// Size returns an option of type OptSize in bytes, fallback if it was not
// given.
func (o *Opts) Size(name string, fallback uint64) uint64 {
	if v, err := ParseSize(o.values[name]); err == nil {
		return v
	}
	return fallback
}

// HelpText lists the options, one a line below the title.
func (l *OptsList) HelpText(title string) string {
	lines := make([]string, len(l.Options))
	for i, d := range l.Options {
		lines[i] = fmt.Sprintf("%s=<%s>", d.Name, optTypeNames[d.Type])
		if d.Help != "" {
			lines[i] = fmt.Sprintf("%-22s - %s", lines[i], d.Help)
		}
	}
	slices.Sort(lines)
	var b strings.Builder
	b.WriteString(title + "\n")
	for _, line := range lines {
		b.WriteString("  " + line + "\n")
	}
	return b.String()
}

// item is one option as it was written.
type item struct {
	key, value string
	// short is set for an option without a value; text is then what was
	// written, and key and value what it stands for.
	short bool
	text  string
}

func split(s, implied string) []item {
	var items []item
	for ; s != ""; implied = "" {
		n := len(s)
		if i := strings.IndexAny(s, "=,"); i >= 0 {
			n = i
		}
		var it item
		switch {
		case strings.HasPrefix(s[n:], "="):
			it.key = s[:n]
			it.value, s = cutValue(s[n+1:])
		case implied != "":
			it.key = implied
			it.value, s = cutValue(s)
		default:
			it = shortForm(s[:n])
			s = strings.TrimPrefix(s[n:], ",")
		}
		items = append(items, it)
	}
	return items
}

func shortForm(text string) item {
	if key, ok := strings.CutPrefix(text, "no"); ok {
		return item{key, "off", true, text}
	}
	return item{text, "on", true, text}
}

// setID looks for the id before anything else is checked, and as if no key
// were implied (observed: "null,,id=c" has an id, and is one value as well).
func (o *Opts) setID(params string) error {
	for _, it := range split(params, "") {
		if it.key != "id" {
			continue
		}
		if !IsIdentifier(it.value) {
			return ErrIdentifier("id")
		}
		o.ID, o.HasID = it.value, true
		return nil
	}
	return nil
}

// ErrIdentifier says that a parameter is no identifier, see [IsIdentifier].
func ErrIdentifier(parameter string) error {
	return qerr.New("Parameter '%s' expects an identifier", parameter).
		WithHint("Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.\n")
}

func (l *OptsList) check(key, value string) error {
	i := slices.IndexFunc(l.Options, func(d OptDesc) bool { return d.Name == key })
	if i < 0 {
		return qerr.New("Invalid parameter '%s'", key)
	}
	switch l.Options[i].Type {
	case OptBool:
		if _, ok := ParseBool(value); !ok {
			return qerr.New("Parameter '%s' expects 'on' or 'off'", key)
		}
	case OptNumber:
		return checkNumber(key, value)
	case OptSize:
		return checkSize(key, value)
	}
	return nil
}

func checkNumber(key, value string) error {
	switch _, err := ParseUint(value); err {
	case ErrSyntax:
		return qerr.New("Parameter '%s' expects a number", key)
	case ErrRange:
		return qerr.New("Value '%s' is too large for parameter '%s'", value, key)
	}
	return nil
}

func checkSize(key, value string) error {
	switch _, err := ParseSize(value); err {
	case ErrSyntax:
		return qerr.New("Parameter '%s' expects a non-negative number below 2^64", key).
			WithHint("Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n" +
				"and exabytes, respectively.\n")
	case ErrRange:
		return qerr.New("Value '%s' is out of range for parameter '%s'", value, key)
	}
	return nil
}
