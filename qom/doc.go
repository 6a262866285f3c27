// Package qom is the tree of objects that clients see through qom-list,
// qom-get and qom-set.
//
// # Types
//
// A [Type] has a name, a parent and properties; a [Tree] is made with a table
// of types and can be given more. A type is known, and its properties are
// listed, whether or not it can be created here. The order of a table is that
// of registration: QEMU keeps types, and each type its properties, in hash
// tables whose iteration order depends on it (package ghash), and that is the
// order a client sees.
//
// # Objects
//
// An [Object] has a type, a place in the tree and a Value, which is the Go
// value that its properties read and write. What belongs to a path are its
// children: "/objects" is a container with one child for each object that a
// user created. Other packages hang their own objects into the tree: the
// character devices sit below "/chardevs".
//
// A path that starts with a slash begins at the root. Any other is searched
// everywhere and must fit exactly one object.
//
// # User-creatable objects
//
// [Tree.Add] makes an object as object-add and --object do: properties are set
// one after the other, then the object is hung into the tree, then its Value
// is completed, which is the moment it starts to work. Here are secrets,
// iothreads, throttle groups, TLS credentials and authorization. What a thread
// or the main loop is, this package does not know: [Hooks] tell it.
//
// Others use what the objects stand for: [Tree.Secret], [Tree.TLSCredentials],
// [Tree.Authorize].
//
// Objects for host threads (thread-context), persistent reservations and the
// kernel's key ring are listed but refused, and anonymous TLS credentials can
// be made but not used.
package qom
