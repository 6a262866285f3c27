// Package schema is what a client can say and hear: the commands, events and
// types of QMP, written once in QAPI's own language (the *.json files here,
// qapi-code-gen.rst) and turned into Go by "go generate".
//
// # Types
//
// A struct of the schema is a struct of Go, the members of its base among its
// own. Optional members are pointers; lists and [Any] are nil when absent.
// Lists hold pointers to structs, and scalars as they are. Enumerations count
// from 0 in the order of the schema, and print as their names.
//
// A union is a struct with the common members and a field Variant, which
// holds a pointer to the struct of the branch that the tag chooses, or nil if
// that branch has no members. An alternate is a struct with a pointer for
// each alternative, of which one is set.
//
// # Reading
//
// Arguments are visited in the order of the schema, and the first mistake is
// reported in the reference's words. [Decode] does this for one type, in one
// of two modes: [QMP] for JSON, [Keyval] for the dotted options of a command
// line, where every leaf is text.
//
//	opts, err := schema.DecodeBlockdevOptions(v, schema.QMP)
//
// # Printing
//
// AppendJSON prints a value as a monitor does: the members in the order of
// QEMU's dict, which is computed when the code is generated.
//
// # Tables
//
// A [Table] holds the commands of one personality. Each has a method, made
// from the schema, that registers its handler with typed arguments and
// answer:
//
//	t := schema.NewTable()
//	t.BlockdevAdd(func(ctx context.Context, o *schema.BlockdevOptions) error { … })
//	t.QueryQmpSchema(func(context.Context) ([]*schema.SchemaInfo, error) { return t.Introspect(), nil })
//	t.Emits(&schema.StopEvent{}, &schema.ResumeEvent{})
//
// What was not registered does not exist: neither for [Table.Lookup] nor in
// [Table.Introspect]. A command with 'gen': false in the schema gets its
// arguments unread.
//
// # Versions
//
// Every definition and member says since which release of QEMU it exists:
// "Since: 2.9" of a definition, "(since 10.0)" in the description of a member,
// value or feature. [NewTableFor] makes a table that answers as an older
// release: what is newer is unexpected in requests, missing in answers and
// not in the introspection. What a release had and a later one dropped is not
// described.
//
// # Spelling
//
// The schema is parsed by go-qemu's qapi-schema, which asks for some care: in
// the long form of a member 'type' comes first, conditions are a name or one
// level of 'all', 'any' or 'not', and the pragma documentation-exceptions is
// unknown. It keeps neither comments nor positions and stops in silence at
// what it does not know; the generator therefore cuts the files into
// definitions itself, reads the documentation comments, and gives the parser
// one definition at a time. Conditions are those of the reference's build:
// what it lacks (CONFIG_BLKIO) has no Go type and is in no list, but takes a
// number in the introspection, as it does there.
package schema
