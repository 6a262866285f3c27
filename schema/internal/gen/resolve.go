package main

import (
	"fmt"
	"regexp"
	"slices"

	qapischema "github.com/digitalocean/go-qemu/qapi-schema"
)

func builtins() []*builtin {
	return []*builtin{
		{"str", "string", "string", "readString", "appendString"},
		{"number", "number", "float64", "readNumber", "qjson.AppendDouble"},
		{"int", "int", "int64", "readInt64", "qjson.AppendInt"},
		{"int8", "int", "int8", "readInt8", "appendSigned"},
		{"int16", "int", "int16", "readInt16", "appendSigned"},
		{"int32", "int", "int32", "readInt32", "appendSigned"},
		{"int64", "int", "int64", "readInt64", "qjson.AppendInt"},
		{"uint8", "int", "uint8", "readUint8", "appendUnsigned"},
		{"uint16", "int", "uint16", "readUint16", "appendUnsigned"},
		{"uint32", "int", "uint32", "readUint32", "appendUnsigned"},
		{"uint64", "int", "uint64", "readUint64", "qjson.AppendUint"},
		{"size", "int", "uint64", "readSize", "qjson.AppendUint"},
		{"bool", "boolean", "bool", "readBool", "qjson.AppendBool"},
		{"null", "null", "bool", "", ""},
		{"any", "value", "Any", "readAny", "appendAny"},
	}
}

// resolver turns parsed expressions into the model.
type resolver struct {
	s       *schema
	defined map[string]bool
	// symbols are the conditions that hold.
	symbols map[string]bool
	// later is what must wait until every name is known.
	later []func() error
}

func resolve(exprs []*expr, symbols map[string]bool) (*schema, error) {
	s := &schema{types: map[string]typ{}, builtins: builtins()}
	s.nothing = &object{common: common{name: "q_empty"}, empty: true}
	r := &resolver{s: s, symbols: symbols}
	for _, b := range s.builtins {
		s.types[b.name] = b
	}
	for _, e := range exprs {
		if err := r.define(e); err != nil {
			return nil, err
		}
	}
	for _, f := range r.later {
		if err := f(); err != nil {
			return nil, err
		}
	}
	for _, e := range exprs {
		if err := undocumented(e); err != nil {
			return nil, err
		}
	}
	s.markInput()
	return s, nil
}

// undocumented complains of descriptions of things that do not exist.
func undocumented(e *expr) error {
	if e.doc == nil {
		return nil
	}
	for _, entries := range []map[string]*entry{e.doc.members, e.doc.features} {
		for name, d := range entries {
			if !d.used {
				return e.errorf("@%s is described but does not exist", name)
			}
		}
	}
	return nil
}

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*$`)

func (r *resolver) common(e *expr, name string, cond *qapischema.Cond, fs []qapischema.Feature) (common, error) {
	c := common{name: name, doc: e.doc, src: e}
	switch {
	case !validName.MatchString(name):
		return c, e.errorf("bad name %q", name)
	case e.doc == nil || e.doc.symbol != name:
		return c, e.errorf("%s has no documentation", name)
	case e.doc.since == 0:
		return c, e.errorf("%s: Since: is missing", name)
	case r.defined[name]:
		return c, e.errorf("%s is defined twice", name)
	}
	if r.defined == nil {
		r.defined = map[string]bool{}
	}
	r.defined[name] = true
	holds, err := r.holds(e, cond)
	if err != nil {
		return c, err
	}
	c.off = !holds
	c.features, err = r.features(e, fs)
	return c, err
}

func (r *resolver) features(e *expr, fs []qapischema.Feature) ([]feature, error) {
	var out []feature
	for _, f := range fs {
		d := e.doc.features[f.Name]
		if d == nil {
			return nil, e.errorf("feature %s is not described", f.Name)
		}
		d.used = true
		out = append(out, feature{f.Name, d.since})
	}
	return out, nil
}

// holds evaluates a condition. The parser knows one level of all, any, not.
func (r *resolver) holds(e *expr, cond *qapischema.Cond) (bool, error) {
	switch {
	case cond == nil:
		return true, nil
	case cond.If != nil:
		return r.symbols[string(*cond.If)], nil
	case cond.Not != nil:
		return !r.symbols[string(*cond.Not)], nil
	case cond.All != nil:
		return !slices.ContainsFunc(*cond.All, func(s string) bool { return !r.symbols[s] }), nil
	case cond.Any != nil:
		return slices.ContainsFunc(*cond.Any, func(s string) bool { return r.symbols[s] }), nil
	}
	return false, e.errorf("empty condition")
}

// describe takes the documentation of a member or value.
func (e *expr) describe(name string) (text string, since version, err error) {
	d := e.doc.members[name]
	if d == nil || d.text == "" {
		return "", 0, e.errorf("@%s is not described", name)
	}
	d.used = true
	since = d.since
	if since == 0 {
		since = e.doc.since
	}
	return d.text, since, nil
}

func (r *resolver) define(e *expr) error {
	switch n := e.node.(type) {
	case qapischema.Pragma:
		return nil
	case *qapischema.Enum:
		return r.enum(e, n)
	case *qapischema.Struct:
		return r.structure(e, n)
	case *qapischema.Union:
		return r.union(e, n)
	case *qapischema.Alternate:
		return r.alternate(e, n)
	case *qapischema.Command:
		return r.command(e, n)
	case *qapischema.Event:
		return r.event(e, n)
	}
	return e.errorf("unknown definition %T", e.node)
}

func (r *resolver) enum(e *expr, n *qapischema.Enum) error {
	c, err := r.common(e, n.Name, n.If, n.Features)
	if err != nil {
		return err
	}
	en := &enum{common: c}
	for _, v := range n.Values {
		text, since, err := e.describe(v.Value)
		if err != nil {
			return err
		}
		fs, err := r.features(e, v.Features)
		if err != nil {
			return err
		}
		holds, err := r.holds(e, v.Cond)
		if err != nil {
			return err
		}
		en.values = append(en.values, &value{v.Value, text, since, fs, !holds})
	}
	r.s.enums = append(r.s.enums, en)
	r.s.types[en.name] = en
	return nil
}

func (en *enum) value(name string) *value {
	for _, v := range en.values {
		if v.name == name {
			return v
		}
	}
	return nil
}

func (r *resolver) structure(e *expr, n *qapischema.Struct) error {
	c, err := r.common(e, n.Name, n.If, n.Features)
	if err != nil {
		return err
	}
	o := &object{common: c}
	r.s.objects = append(r.s.objects, o)
	r.s.types[o.name] = o
	r.later = append(r.later, func() error {
		if err := r.setBase(o, n.Base); err != nil {
			return err
		}
		return r.setMembers(o, n.Members)
	})
	return nil
}

func (r *resolver) setBase(o *object, name string) error {
	if name == "" {
		return nil
	}
	base, ok := r.s.types[name].(*object)
	if !ok {
		return o.src.errorf("base %s is no struct", name)
	}
	o.base = base
	return nil
}

func (r *resolver) setMembers(o *object, ms []qapischema.Member) error {
	for _, m := range ms {
		text, since, err := o.src.describe(m.Name)
		if err != nil {
			return err
		}
		t, err := r.ref(o.src, m.Type)
		if err != nil {
			return err
		}
		fs, err := r.features(o.src, m.Features)
		if err != nil {
			return err
		}
		if m.If != nil {
			return o.src.errorf("%s: conditional members are not supported", m.Name)
		}
		o.own = append(o.own, &member{m.Name, text, t, m.Optional, since, fs, o})
	}
	return nil
}

func (r *resolver) ref(e *expr, t qapischema.TypeRef) (typ, error) {
	name := t.Type
	if name == "" {
		name = string(t.TypeArray)
	}
	found := r.s.types[name]
	if found == nil {
		return nil, e.errorf("unknown type %q", name)
	}
	if t.Type != "" {
		return found, nil
	}
	key := "[" + name + "]"
	if a := r.s.types[key]; a != nil {
		return a, nil
	}
	a := &array{found}
	r.s.types[key] = a
	return a, nil
}

func (r *resolver) union(e *expr, n *qapischema.Union) error {
	c, err := r.common(e, n.Name, n.If, n.Features)
	if err != nil {
		return err
	}
	o := &object{common: c}
	r.s.objects = append(r.s.objects, o)
	r.s.types[o.name] = o
	r.later = append(r.later, func() error {
		if err := r.setBase(o, n.Base.Name); err != nil {
			return err
		}
		return r.setMembers(o, n.Base.Members)
	}, func() error { return r.setVariants(o, n) })
	return nil
}

func (r *resolver) setVariants(o *object, n *qapischema.Union) error {
	for _, m := range o.members() {
		if m.name == n.Discriminator {
			o.tag = m
		}
	}
	if o.tag == nil {
		return o.src.errorf("no discriminator %s", n.Discriminator)
	}
	en, ok := o.tag.typ.(*enum)
	if !ok || o.tag.optional {
		return o.src.errorf("discriminator %s must be a mandatory enum", n.Discriminator)
	}
	covered := map[*value]bool{}
	for _, b := range n.Branches {
		v := en.value(b.Name)
		t, isObject := r.s.types[b.Type.Type].(*object)
		if v == nil || !isObject || covered[v] {
			return o.src.errorf("bad branch %s", b.Name)
		}
		holds, err := r.holds(o.src, b.If)
		if err != nil {
			return err
		}
		covered[v] = true
		t.branch = true
		o.variants = append(o.variants, &variant{v, t, !holds || v.off || t.off})
	}
	// Values without a branch are listed behind the branches (observed: the
	// reference's introspection of object-add).
	for _, v := range en.values {
		if !covered[v] {
			o.variants = append(o.variants, &variant{v, nil, v.off})
		}
	}
	return nil
}

func (r *resolver) alternate(e *expr, n *qapischema.Alternate) error {
	c, err := r.common(e, n.Name, n.If, n.Features)
	if err != nil {
		return err
	}
	a := &alternate{common: c}
	r.s.alternates = append(r.s.alternates, a)
	r.s.types[a.name] = a
	r.later = append(r.later, func() error {
		for _, alt := range n.Data {
			text, since, err := e.describe(alt.Name)
			if err != nil {
				return err
			}
			t, err := r.ref(e, alt.Type)
			if err != nil {
				return err
			}
			a.alternatives = append(a.alternatives, &member{alt.Name, text, t, true, since, nil, nil})
		}
		return nil
	})
	return nil
}

func (r *resolver) command(e *expr, n *qapischema.Command) error {
	c, err := r.common(e, n.Name, n.If, n.Features)
	if err != nil {
		return err
	}
	cmd := &command{common: c, boxed: isTrue(n.Boxed), oob: isTrue(n.AllowOOB), preconfig: isTrue(n.AllowPreconfig)}
	cmd.gen = n.Gen == nil || *n.Gen
	r.s.commands = append(r.s.commands, cmd)
	r.s.tops = append(r.s.tops, cmd)
	r.later = append(r.later, func() error {
		ref, members := "", []qapischema.Member(nil)
		if n.Data.Ref != nil {
			ref = string(*n.Data.Ref)
		}
		if n.Data.Embed != nil {
			members = n.Data.Embed.Members
		}
		cmd.arg, err = r.arguments(cmd.common, ref, members)
		if err != nil || n.Returns == nil {
			return err
		}
		cmd.ret, err = r.ref(e, *n.Returns)
		return err
	})
	return nil
}

func isTrue(b *bool) bool { return b != nil && *b }

func (r *resolver) event(e *expr, n *qapischema.Event) error {
	c, err := r.common(e, n.Name, n.If, n.Features)
	if err != nil {
		return err
	}
	ev := &event{common: c}
	r.s.events = append(r.s.events, ev)
	r.s.tops = append(r.s.tops, ev)
	r.later = append(r.later, func() error {
		ref, members := n.Data.Selector.Ref, []qapischema.Member(nil)
		if embed := n.Data.Selector.Embed; embed != nil {
			members = embed.Members
			if embed.Type != "" {
				ref = embed.Type
			}
		}
		ev.arg, err = r.arguments(ev.common, ref, members)
		return err
	})
	return nil
}

// arguments returns the type of the arguments of a command or event, nil when
// there are none.
func (r *resolver) arguments(c common, ref string, members []qapischema.Member) (*object, error) {
	if ref != "" {
		o, ok := r.s.types[ref].(*object)
		if !ok {
			return nil, c.src.errorf("arguments %s are no struct or union", ref)
		}
		return o, nil
	}
	if len(members) == 0 {
		return nil, nil
	}
	c.features = nil
	o := &object{common: c, implicit: true}
	o.name = fmt.Sprintf("q_obj_%s-arg", c.name)
	return o, r.setMembers(o, members)
}

// markInput finds the types that arguments reach: those need decoders. A
// struct no command uses is an input as well, read from a command line.
func (s *schema) markInput() {
	for _, c := range s.commands {
		if c.arg != nil && c.gen {
			markInput(c.arg)
		}
	}
	used := map[typ]bool{}
	for _, c := range s.commands {
		reach(used, c.ret)
	}
	for _, e := range s.events {
		if e.arg != nil {
			reach(used, e.arg)
		}
	}
	for _, o := range s.objects {
		if !o.input && !o.off && !used[o] && !o.isBase(s) {
			markInput(o)
		}
	}
}

func (o *object) isBase(s *schema) bool {
	return slices.ContainsFunc(s.objects, func(d *object) bool { return d.base == o })
}

func reach(used map[typ]bool, t typ) {
	if t == nil || used[t] {
		return
	}
	used[t] = true
	switch t := t.(type) {
	case *array:
		reach(used, t.elem)
	case *alternate:
		for _, a := range t.alternatives {
			reach(used, a.typ)
		}
	case *object:
		for _, m := range t.members() {
			reach(used, m.typ)
		}
		for _, v := range t.variants {
			if v.typ != nil {
				reach(used, v.typ)
			}
		}
	}
}

func markInput(t typ) {
	switch t := t.(type) {
	case *array:
		markInput(t.elem)
	case *enum:
		t.input = true
	case *alternate:
		if t.input {
			return
		}
		t.input = true
		for _, a := range t.alternatives {
			markInput(a.typ)
		}
	case *object:
		if t.input {
			return
		}
		t.input = true
		for _, m := range t.members() {
			markInput(m.typ)
		}
		for _, v := range t.variants {
			if v.typ != nil && !v.off {
				markInput(v.typ)
			}
		}
	}
}
