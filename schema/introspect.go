package schema

import (
	"slices"
	"strconv"
)

// The tables behind query-qmp-schema. They are generated; type names in an
// answer are not, since only what is registered is numbered.

type schemaFeature struct {
	name  string
	since Version
}

type schemaMember struct {
	name     string
	typ      int
	since    Version
	optional bool
	features []schemaFeature
}

type schemaVariant struct {
	name  string
	typ   int
	since Version
	// off marks a branch which the conditions of the build exclude.
	off bool
}

// schemaTop is a command or event.
type schemaTop struct {
	name     string
	meta     SchemaMetaType
	since    Version
	features []schemaFeature
	arg, ret int
	oob      bool
}

type schemaType struct {
	meta SchemaMetaType
	// name and json belong to builtin types.
	name string
	json JSONType
	// element is that of an array.
	element  int
	features []schemaFeature
	members  []schemaMember
	tag      string
	variants []schemaVariant
	// off marks a type which the conditions of the build exclude: it takes a
	// number, as in the reference, but has no entry.
	off bool
}

// Introspect returns what query-qmp-schema answers: the registered commands
// and declared events in the order of the schema, then the types they reach
// in the order in which they are met. Types are numbered in that order too;
// an array is called after its element.
func (t *Table) Introspect() []*SchemaInfo {
	in := &introspector{version: t.version}
	for i, top := range schemaTops {
		if t.byOrder[i] != nil || t.declared[i] && top.since <= t.version {
			in.add(in.top(&top))
		}
	}
	for i := 0; i < len(in.queue); i++ {
		typ := &schemaTypes[in.queue[i]]
		entry := in.entry(in.queue[i], typ)
		if !typ.off {
			in.add(entry)
		}
	}
	return in.entries
}

// introspector builds one answer.
type introspector struct {
	version Version
	entries []*SchemaInfo
	names   [len(schemaTypes)]string
	queue   []int
	numbers int
}

func (in *introspector) add(e *SchemaInfo) { in.entries = append(in.entries, e) }

// ref returns the name of a type; the first use gives it one.
func (in *introspector) ref(i int) string {
	if in.names[i] != "" {
		return in.names[i]
	}
	in.queue = append(in.queue, i)
	switch typ := &schemaTypes[i]; typ.meta {
	case SchemaMetaTypeBuiltin:
		in.names[i] = typ.name
	case SchemaMetaTypeArray:
		in.names[i] = "[" + in.ref(typ.element) + "]"
	default:
		in.names[i] = strconv.Itoa(in.numbers)
		in.numbers++
	}
	return in.names[i]
}

func (in *introspector) features(fs []schemaFeature) []string {
	var names []string
	for _, f := range fs {
		if f.since <= in.version {
			names = append(names, f.name)
		}
	}
	return names
}

func (in *introspector) top(top *schemaTop) *SchemaInfo {
	e := &SchemaInfo{Name: top.name, MetaType: top.meta, Features: in.features(top.features)}
	arg := in.ref(top.arg)
	if top.meta == SchemaMetaTypeEvent {
		e.Variant = &SchemaInfoEvent{ArgType: arg}
		return e
	}
	command := &SchemaInfoCommand{ArgType: arg, RetType: in.ref(top.ret)}
	if top.oob {
		command.AllowOob = &top.oob
	}
	e.Variant = command
	return e
}

func (in *introspector) entry(i int, typ *schemaType) *SchemaInfo {
	e := &SchemaInfo{Name: in.names[i], MetaType: typ.meta, Features: in.features(typ.features)}
	switch typ.meta {
	case SchemaMetaTypeBuiltin:
		e.Variant = &SchemaInfoBuiltin{JsonType: typ.json}
	case SchemaMetaTypeArray:
		e.Variant = &SchemaInfoArray{ElementType: in.ref(typ.element)}
	case SchemaMetaTypeEnum:
		e.Variant = in.enum(typ)
	case SchemaMetaTypeAlternate:
		e.Variant = in.alternate(typ)
	case SchemaMetaTypeObject:
		e.Variant = in.object(typ)
	}
	return e
}

func (in *introspector) enum(typ *schemaType) *SchemaInfoEnum {
	x := &SchemaInfoEnum{}
	for _, m := range typ.members {
		if m.since > in.version {
			continue
		}
		x.Members = append(x.Members, &SchemaInfoEnumMember{Name: m.name, Features: in.features(m.features)})
		x.Values = append(x.Values, m.name)
	}
	return x
}

func (in *introspector) alternate(typ *schemaType) *SchemaInfoAlternate {
	x := &SchemaInfoAlternate{}
	for _, m := range typ.members {
		if m.since <= in.version {
			x.Members = append(x.Members, &SchemaInfoAlternateMember{Type: in.ref(m.typ)})
		}
	}
	return x
}

func (in *introspector) object(typ *schemaType) *SchemaInfoObject {
	x := &SchemaInfoObject{}
	for _, m := range typ.members {
		if m.since > in.version {
			continue
		}
		member := &SchemaInfoObjectMember{Name: m.name, Type: in.ref(m.typ), Features: in.features(m.features)}
		if m.optional {
			member.Default = Any("null")
		}
		x.Members = append(x.Members, member)
	}
	if typ.tag == "" {
		return x
	}
	x.Tag = &typ.tag
	for _, v := range typ.variants {
		if v.since > in.version {
			continue
		}
		name := in.ref(v.typ)
		if !v.off {
			x.Variants = append(x.Variants, &SchemaInfoObjectVariant{Case: v.name, Type: name})
		}
	}
	x.Variants = slices.Clip(x.Variants)
	return x
}
