// Package keyval reads options as QEMU's programs take them on a command line.
//
// # Two languages
//
// The newer one, for --blockdev, --object, --export, --nbd-server and
// --monitor, is a second notation for JSON: dotted keys make objects and
// lists. [Parse] turns
//
//	quorum,node-name=q,children.0=a,children.1.driver=null-co
//
// into
//
//	{"driver": "quorum", "node-name": "q", "children": ["a", {"driver": "null-co"}]}
//
// where every leaf is a string; what a string means (a number, a size, on or
// off) is decided by the schema, with [ParseInt], [ParseSize] and [ParseBool].
// An option that starts with a brace is JSON as it stands; [ParseOption] takes
// either.
//
// The older one, for --chardev and for image formats' creation options, is
// flat and carries its own types: an [OptsList] says which names exist,
// [OptsList.Parse] checks a text against it. It knows short forms (server,
// nowait) which are deprecated and give a warning.
//
// In both a comma inside a value is written twice, and a key given twice keeps
// its last value.
//
// Values are text: one that is no UTF-8 cannot stand in JSON and is refused by
// Parse, where the reference would pass it on as it is.
package keyval
