package blkdebug

import (
	"slices"
	"strconv"
	"syscall"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
)

// The kinds of rules, and their options.
const (
	sectionInjectError = "inject-error"
	sectionSetState    = "set-state"

	optEvent       = "event"
	optState       = "state"
	optIotype      = "iotype"
	optErrno       = "errno"
	optSector      = "sector"
	optOnce        = "once"
	optImmediately = "immediately"
	optNewState    = "new_state"
)

// sectionOptions are the options of each kind of rules.
var sectionOptions = map[string][]string{
	sectionInjectError: {optEvent, optState, optIotype, optErrno, optSector, optOnce, optImmediately},
	sectionSetState:    {optEvent, optState, optNewState},
}

// section describes one rule.
type section struct {
	kind    string
	options *block.Options
}

func newSection(kind string) *section { return &section{kind: kind, options: block.NewOptions()} }

func (s *section) knows(key string) bool { return slices.Contains(sectionOptions[s.kind], key) }

// set sets an option that the section knows, and refuses a value of a wrong
// type.
func (s *section) set(key string, v block.OptValue) error {
	s.options.Set(key, v)
	check := block.NewOptions()
	check.Set(key, v)
	var err error
	switch key {
	case optState, optErrno, optSector, optNewState:
		_, err = check.TakeNumber(key, 0)
	case optOnce, optImmediately:
		_, err = check.TakeBool(key, false)
	}
	return err
}

// takeRules takes the rules of the config file, if there is one, and then those
// of the options.
func (f *filter) takeRules(g *block.Graph, o *block.Options) ([]*rule, error) {
	var all []*section
	if v, ok := o.Get(optConfig); ok {
		f.config = o.TakeString(optConfig, "")
		if v.Kind() != qjson.Null {
			file, err := readConfig(f.config, g)
			if err != nil {
				return nil, err
			}
			all = file
		}
	}
	for _, kind := range []string{sectionInjectError, sectionSetState} {
		list, err := takeSections(o, kind)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	var list []*rule
	for _, kind := range []string{sectionInjectError, sectionSetState} {
		for _, s := range all {
			if s.kind != kind {
				continue
			}
			r, err := s.rule()
			if err != nil {
				return nil, err
			}
			list = append(list, r)
		}
	}
	return list, nil
}

// takeSections takes the rules of a kind out of the options: one alone, or a
// list of them.
func takeSections(o *block.Options, kind string) ([]*section, error) {
	rest := o.Sub(kind, true)
	s := newSection(kind)
	left, err := s.take(rest)
	switch {
	case err != nil || rest.Len() == 0:
		return nil, err
	case s.options.Len() == 0:
		return takeList(rest, kind)
	case left != "":
		return nil, qerr.New("Unknown option '%s' for [%s]", left, kind)
	}
	return []*section{s}, nil
}

func takeList(o *block.Options, kind string) (list []*section, err error) {
	for n := 0; ; n++ {
		key := strconv.Itoa(n)
		if o.Has(key) {
			return nil, qerr.New("[%s] section (index %d) does not consist of keys", kind, n)
		}
		if !o.HasSub(key) {
			break
		}
		s := newSection(kind)
		left, err := s.take(o.Sub(key, true))
		if err != nil {
			return nil, err
		}
		if left != "" {
			return nil, qerr.New("[%s] section doesn't support the option '%s'", kind, left)
		}
		list = append(list, s)
	}
	if keys := o.Keys(); len(keys) > 0 {
		return nil, qerr.New("Unused option '%s' for [%s]", keys[0], kind)
	}
	return list, nil
}

// take sets the options that are given. It returns one that the section does
// not know, "" if there is none.
func (s *section) take(o *block.Options) (left string, err error) {
	for _, key := range o.Keys() {
		v, _ := o.Get(key)
		switch {
		case !s.knows(key):
			if left == "" {
				left = key
			}
		default:
			if err := s.set(key, v); err != nil {
				return "", err
			}
		}
	}
	return left, nil
}

// rule makes the rule. The options have values of their types.
func (s *section) rule() (*rule, error) {
	if !s.options.Has(optEvent) {
		return nil, qerr.New("Missing event name for rule")
	}
	event := s.options.GetString(optEvent)
	e, ok := block.ParseDebugEvent(event)
	if !ok {
		return nil, qerr.New("invalid parameter value: %s", event)
	}
	r := &rule{event: e, state: int32(s.number(optState, 0))}
	if s.kind == sectionSetState {
		r.newState = int32(s.number(optNewState, 0))
		return r, nil
	}
	sector := int64(s.number(optSector, 1<<64-1))
	r.error = &injection{
		kinds:       ioDefault,
		errno:       int32(s.number(optErrno, uint64(syscall.EIO))),
		anywhere:    sector == -1,
		offset:      sector * block.SectorSize,
		once:        s.flag(optOnce),
		immediately: s.flag(optImmediately),
	}
	if s.options.Has(optIotype) {
		n := slices.Index(iotypeNames, s.options.GetString(optIotype))
		if n < 0 {
			return nil, qerr.New("invalid parameter value: %s", s.options.GetString(optIotype))
		}
		r.error.kinds = 1 << n
	}
	return r, nil
}

func (s *section) number(key string, def uint64) uint64 {
	n, _ := s.options.TakeNumber(key, def)
	return n
}

func (s *section) flag(key string) bool {
	on, _ := s.options.TakeBool(key, false)
	return on
}

// permNames are the names of permissions, as in the QAPI type BlockPermission,
// each at the place of its bit.
var permNames = []string{"consistent-read", "write", "write-unchanged", "resize"}

// takePerm takes element n of a list of permissions.
func takePerm(list *block.Options, n int) (block.Perm, error) {
	key := strconv.Itoa(n)
	v, ok := list.Get(key)
	if !ok || v.Kind() != qjson.String {
		return 0, qerr.New("Invalid parameter type for '[%d]', expected: string", n)
	}
	list.Delete(key)
	bit := slices.Index(permNames, v.String())
	if bit < 0 {
		return 0, qerr.New("Parameter 'null' does not accept value '%s'", v)
	}
	return 1 << bit, nil
}
