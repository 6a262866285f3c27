// Package export shows nodes of the block graph to others: to clients of NBD,
// so far.
//
// # Exports
//
// An [Export] holds one node by a backend of its own. Like every user it takes
// permissions on the node (to read, and to write if it is writable), lets
// others do all but what its kind cannot bear, and is held up by drained
// sections. Where requests run follows from the node: an export may ask for an
// iothread, and the node moves there if its other users let it.
//
// A [Set] knows the exports of one daemon by their ids, whatever their kind.
//
// # Life and death
//
// An export belongs to the user who made it, and to each client who is
// connected to it: both hold a reference. Deleting it gives the user's
// reference back and cuts clients off. As long as one still has a request
// under way, the export is shutting down: it is listed, and its id is taken.
// With the last reference it goes, and the Set's owner is told
// ([Config.Deleted]).
//
// # Kinds
//
// What a kind of export must do is the interface kind: publish the node, cut
// clients off, and withdraw it. The kind nbd and its server are in nbd*.go.
package export
