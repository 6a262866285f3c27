package main

// The resolved schema: names replaced by what they stand for, bases
// flattened, every definition with its documentation.

// typ is a QAPI type.
type typ interface {
	// qapi returns the name in the schema, "[x]" for arrays.
	qapi() string
}

// builtin is a predefined type (qapi-code-gen.rst, "Built-in Types").
type builtin struct {
	name string
	// json is the type on the wire as introspection calls it.
	json string
	// goType is the type of a field.
	goType string
	// read is the decoder's function.
	read string
	// write is the encoder's function.
	write string
}

// common is what all definitions have.
type common struct {
	name     string
	doc      *doc
	src      *expr
	features []feature
	// off is set when the definition's condition does not hold.
	off bool
}

type feature struct {
	name  string
	since version
}

type enum struct {
	common
	values []*value
	input  bool
}

type value struct {
	name     string
	text     string
	since    version
	features []feature
	off      bool
}

type object struct {
	common
	base     *object
	own      []*member
	tag      *member
	variants []*variant
	// implicit is set for the arguments of a command or event which has no
	// type of its own.
	implicit bool
	// empty marks the type without members that stands for "nothing".
	empty bool
	// branch is set when the type is a branch of a union.
	branch bool
	input  bool
}

type member struct {
	name     string
	text     string
	typ      typ
	optional bool
	since    version
	features []feature
	owner    *object
}

// variant is a branch of a union. What has no members has no type.
type variant struct {
	value *value
	typ   *object
	off   bool
}

type alternate struct {
	common
	alternatives []*member
	input        bool
}

type array struct{ elem typ }

type command struct {
	common
	arg       *object
	boxed     bool
	ret       typ
	gen       bool
	oob       bool
	preconfig bool
}

type event struct {
	common
	arg *object
}

func (b *builtin) qapi() string   { return b.name }
func (e *enum) qapi() string      { return e.name }
func (o *object) qapi() string    { return o.name }
func (a *alternate) qapi() string { return a.name }
func (a *array) qapi() string     { return "[" + a.elem.qapi() + "]" }

// members returns the members of the base and the type's own.
func (o *object) members() []*member {
	if o.base == nil {
		return o.own
	}
	inherited := o.base.members()
	return append(inherited[:len(inherited):len(inherited)], o.own...)
}

// schema is everything, in the order of the text. Commands and events share
// one order.
type schema struct {
	enums      []*enum
	objects    []*object
	alternates []*alternate
	commands   []*command
	events     []*event
	tops       []any
	types      map[string]typ
	builtins   []*builtin
	nothing    *object
}
