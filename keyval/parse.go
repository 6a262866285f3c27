package keyval

import (
	"strings"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
)

// maxFragment is the longest part of a dotted key, in bytes (observed).
const maxFragment = 127

// ParseOption reads an option in either notation: JSON if it starts with a
// brace, else as [Parse]. JSON never asks for help.
func ParseOption(text, implied string) (v qjson.Value, help bool, err error) {
	doc := []byte(text)
	if !strings.HasPrefix(text, "{") {
		if doc, help, err = Parse(text, implied); err != nil {
			return v, false, err
		}
	}
	v, err = qjson.Parse(doc)
	return v, help, err
}

// Parse reads "key=value,…" and returns it as a JSON object with strings for
// leaves. The first value may come without its key when implied names one.
// help tells that "help" or "?" stood among the keys; the caller that has no
// help to offer says so with [ErrNoHelp].
//
// Errors are the reference's (observed: transcripts cli/blockdev-errors).
func Parse(params, implied string) (doc []byte, help bool, err error) {
	root := &node{dict: newDict()}
	for rest := params; rest != ""; implied = "" {
		var isHelp bool
		if rest, isHelp, err = parseOne(root.dict, rest, implied); err != nil {
			return nil, false, err
		}
		help = help || isHelp
	}
	if err := listify(root, ""); err != nil {
		return nil, false, err
	}
	doc, err = root.appendJSON(nil, "")
	return doc, help, err
}

// ErrNoHelp is the answer to help where there is none.
func ErrNoHelp() error { return qerr.New("Help is not available for this option") }

// parseOne reads one key and its value from the start of s into root and
// returns what is behind the comma.
func parseOne(root *dict, s, implied string) (rest string, help bool, err error) {
	n := len(s)
	if i := strings.IndexAny(s, "=,"); i >= 0 {
		n = i
	}
	key, rest := s[:n], s[n:]
	if value, ok := strings.CutPrefix(rest, "="); ok {
		value, rest = cutValue(value)
		return rest, false, set(root, key, &value)
	}
	rest = strings.TrimPrefix(rest, ",")
	switch {
	case key == "help" || key == "?":
		return rest, true, nil
	case key != "" && implied != "":
		return rest, false, set(root, implied, &key)
	}
	return "", false, set(root, key, nil)
}

// cutValue reads a value up to the first comma that is not doubled.
func cutValue(s string) (value, rest string) {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, ',')
		if i < 0 {
			b.WriteString(s)
			return b.String(), ""
		}
		b.WriteString(s[:i])
		if !strings.HasPrefix(s[i:], ",,") {
			return b.String(), s[i+1:]
		}
		b.WriteByte(',')
		s = s[i+2:]
	}
}

// set stores the value at a dotted key, making the objects on the way. A part
// is checked before the one in front of it is entered, which decides what is
// reported when both are wrong. value is nil when there was none.
func set(d *dict, key string, value *string) error {
	n, err := fragment(key, 0)
	if err != nil {
		return err
	}
	start, end := 0, n
	for end < len(key) {
		if n, err = fragment(key, end+1); err != nil {
			return err
		}
		next := d.at[key[start:end]]
		if next == nil {
			next = &node{dict: newDict()}
			d.put(key[start:end], next)
		}
		if next.dict == nil {
			return inconsistent(key[:end])
		}
		d, start, end = next.dict, end+1, end+1+n
	}
	return setLeaf(d, key[start:], key, value)
}

func setLeaf(d *dict, name, key string, value *string) error {
	if value == nil {
		return qerr.New("Expected '=' after parameter '%s'", key)
	}
	if old := d.at[name]; old != nil && old.dict != nil {
		return inconsistent(key)
	}
	d.put(name, &node{leaf: *value})
	return nil
}

// fragment returns the length of the part of key that begins at start: a name
// or, behind the first part, an index.
func fragment(key string, start int) (int, error) {
	s := key[start:]
	n := nameLen(s)
	if n == 0 && start > 0 {
		n = span(s, isDigit)
	}
	if behind := s[n:]; n == 0 || behind != "" && behind[0] != '.' {
		return 0, qerr.New("Invalid parameter '%s'", key)
	}
	if n <= maxFragment {
		return n, nil
	}
	if n == len(key) {
		return 0, qerr.New("Parameter '%s' is too long", key)
	}
	return 0, qerr.New("Parameter fragment '%s' is too long", s[:n])
}
