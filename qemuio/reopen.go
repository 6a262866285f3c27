package qemuio

import (
	"fmt"
	"strings"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
)

// The options that reopen knows by its own letters.
const (
	optNodeName = "node-name"
	optReadOnly = "read-only"
	optDirect   = "cache.direct"
	optNoFlush  = "cache.no-flush"
)

// reopening is what the words of reopen ask for.
type reopening struct {
	letter       byte // 'r', 'w' or 0
	cache        string
	direct       bool
	noFlush      bool
	writethrough bool
	options      *block.Options
	// warnings are reported whatever comes of it.
	warnings []string
}

func runReopen(s *Session, l *aio.Lock, argv []string) error {
	n := s.blk.Node()
	if n == nil {
		// The reference ends itself here.
		return runLength(s, l, nil)
	}
	r := &reopening{options: block.NewOptions(), writethrough: !s.blk.WriteCache()}
	ok, err := s.parseReopen(r, argv)
	if ok {
		err = s.reopen(l, n, r)
	}
	return withWarnings(err, r.warnings)
}

// withWarnings puts warnings in front of what is reported.
func withWarnings(err error, warnings []string) error {
	if err != nil {
		warnings = append(warnings, err.Error())
	}
	if len(warnings) == 0 {
		return nil
	}
	e := qerr.New("%s", strings.Join(warnings, "\n"))
	if err != nil {
		e.Hint = qerr.From(err).Hint
	}
	return e
}

// parseReopen reads the words. Without ok there is nothing to do any more.
func (s *Session) parseReopen(r *reopening, argv []string) (ok bool, err error) {
	o := s.options(argv, "c:o:rw")
	for {
		letter, value, more := o.next()
		if !more {
			break
		}
		switch letter {
		case 'c':
			if !r.setCache(value) {
				return false, qerr.New("Invalid cache option: %s", value)
			}
		case 'o':
			if err := r.setOptions(value); err != nil {
				return false, err
			}
		case 'r', 'w':
			if r.letter != 0 {
				return false, qerr.New("Only one -r/-w option may be given")
			}
			r.letter = letter
		}
	}
	return !o.bad && o.count(0, 0), nil
}

func (r *reopening) setCache(mode string) bool {
	r.direct, r.noFlush, r.writethrough = false, false, false
	switch r.cache = mode; mode {
	case "none", "off":
		r.direct = true
	case "directsync":
		r.direct, r.writethrough = true, true
	case "writethrough":
		r.writethrough = true
	case "unsafe":
		r.noFlush = true
	case "writeback":
	default:
		return false
	}
	return true
}

// setOptions reads "name=value,…"; a comma in a value is written twice. A name
// alone means on, or off behind "no".
func (r *reopening) setOptions(text string) error {
	for text != "" {
		name, value, rest, short := cutOption(text)
		text = rest
		plain := name
		if short {
			value = "on"
			if off, ok := strings.CutPrefix(name, "no"); ok {
				name, value = off, "off"
			}
		}
		if name == "id" {
			return qerr.New("Invalid parameter 'id'")
		}
		if short && plain != "help" && plain != "?" {
			r.warnings = append(r.warnings, fmt.Sprintf("warning: short-form boolean option '%s' deprecated\nPlease use %s=%s instead", plain, name, value))
		}
		r.options.Set(name, block.StringOpt(value))
	}
	return nil
}

func cutOption(text string) (name, value, rest string, short bool) {
	end := strings.IndexAny(text, "=,")
	if end < 0 || text[end] == ',' {
		name, rest, _ = strings.Cut(text, ",")
		return name, "", rest, true
	}
	name, text = text[:end], text[end+1:]
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == ',' {
			if i+1 == len(text) || text[i+1] != ',' {
				return name, b.String(), text[i+1:], false
			}
			i++
		}
		b.WriteByte(text[i])
	}
	return name, b.String(), "", false
}

// reopen changes the node. Options that are not mentioned stay as they are.
func (s *Session) reopen(l *aio.Lock, n *block.Node, r *reopening) error {
	if r.writethrough == s.blk.WriteCache() && s.blk.Device() != "" {
		return qerr.New("Cannot change cache.writeback: Device attached")
	}
	readOnly := n.ReadOnly()
	if r.letter != 0 {
		readOnly = r.letter == 'r'
	}
	if readOnly {
		if err := s.dropWrite(l); err != nil {
			return err
		}
	}
	if err := r.complete(n, readOnly); err != nil {
		return err
	}
	r.keepOthers(n)
	if err := n.Graph().Reopen(l, []*block.Options{r.options}); err != nil {
		return err
	}
	s.blk.SetWriteCache(!r.writethrough)
	return nil
}

// keepOthers adds the options that are not mentioned. A child that is named
// anew loses its old description.
func (r *reopening) keepOthers(n *block.Node) {
	old := n.Options().Clone()
	for _, c := range n.Children() {
		if r.options.Has(c.Name()) {
			old.Sub(c.Name(), true)
		}
	}
	r.options.Merge(old)
	r.options.SetDefault(optNodeName, block.StringOpt(n.Name()))
}

// dropWrite gives up writing, so that the node can become read-only.
func (s *Session) dropWrite(l *aio.Lock) error {
	const write = block.PermWrite | block.PermWriteUnchanged
	root := s.blk.Root()
	if root.Perm()&write == 0 {
		return nil
	}
	return s.blk.SetPerm(l, root.Perm()&^write, root.Shared())
}

// complete makes options of the letters.
func (r *reopening) complete(n *block.Node, readOnly bool) error {
	if r.options.Has(optNodeName) && r.options.GetString(optNodeName) != n.Name() {
		return qerr.New("Cannot change the option '%s'", optNodeName)
	}
	if r.options.Has(optReadOnly) {
		if r.letter != 0 {
			return qerr.New("Cannot set both -r/-w and '%s'", optReadOnly)
		}
	} else {
		r.options.Set(optReadOnly, block.BoolOpt(readOnly))
	}
	if r.options.Has(optDirect) || r.options.Has(optNoFlush) {
		if r.cache != "" {
			return qerr.New("Cannot set both -c and the cache options")
		}
		return nil
	}
	if r.cache == "" {
		r.direct = n.Flags()&block.FlagNoCache != 0
		r.noFlush = n.Flags()&block.FlagNoFlush != 0
	}
	r.options.Set(optDirect, block.BoolOpt(r.direct))
	r.options.Set(optNoFlush, block.BoolOpt(r.noFlush))
	return nil
}
