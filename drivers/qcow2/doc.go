// Package qcow2 is the image format qcow2: a disk of which only the written
// parts take space, with backing files, compressed clusters, internal
// snapshots and checks against damage.
//
// # Concepts
//
// An image is made of clusters. A guest's offset is looked up in two steps:
// the L1 table, kept in memory, names L2 tables, and an L2 table's entry says
// where a guest cluster is in the file, or that it reads as zeroes, is
// compressed, or is read from the backing file. L2 tables are read in slices
// through a bounded cache. How often each cluster of the file is used stands
// in refcount blocks, which have a cache of their own.
//
// # The order on disk
//
// Nobody knows in which order a disk writes what lies between two flushes, so
// the driver keeps three rules:
//
//   - A mapping is written when the refcounts and the data that it refers to
//     are durable. Mappings change in the cache alone, and are written all at
//     once: refcount blocks, flush, L2 slices, flush, L1 entries (cache.go,
//     flush.go).
//   - A refcount falls when the mapping that held it is durably gone, and when
//     no request that saw the old mapping is under way any more. Until then the
//     cluster is in a list of clusters to free (free.go), and is not used anew.
//   - A table that moves (refcount table, L1) is durable at its new place before
//     the header names it.
//
// A process that is killed at any point thus leaves an image whose clusters
// have refcounts at least as high as their uses: some may be leaked, none is
// lost. With lazy refcounts they may also be too low, and a bit in the header
// makes the next one who opens the image count anew (repair.go). So it is while
// an internal snapshot is taken or deleted: marks of sole use and refcounts,
// which lie in different places, cannot change at once. Images of version 2 have
// no such bit; there a check finds wrong marks, and no data depends on them.
//
// # Requests
//
// One mutex guards the metadata. It is held while tables are looked at or
// changed, and not while data is moved, so requests to different clusters run
// side by side. A write that allocates enters its guest clusters into a list;
// whoever else wants to change these waits for its end. A write to a cluster that
// is allocated and used once changes no metadata.
//
// Reads, such writes, and writes of whole clusters to new places are also served
// at once ([block.ReqImmediate]) if the mapping and the refcounts are in memory
// and nobody holds the mutex (immediate.go).
//
// # Bitmaps
//
// Persistent dirty bitmaps are read when the node becomes active and marked as
// in use in the image when it becomes writable; they change in memory alone.
// They are written, and the mark taken off, when the node is closed, handed
// over, or made read-only. Who is killed meanwhile leaves the mark, and the
// bitmap is inconsistent for the next one.
//
// # Options
//
//   - file, backing, data-file: the children; the last two default to what the
//     image says.
//   - l2-cache-size, refcount-cache-size, cache-size, l2-cache-entry-size,
//     cache-clean-interval: bounds of the caches, in bytes, and seconds.
//   - lazy-refcounts: let refcounts lag behind; the default is the image's.
//   - pass-discard-request, pass-discard-snapshot, pass-discard-other: which
//     freed clusters are discarded in the file.
//   - discard-no-unref: discarded clusters keep their place.
//   - encrypt: the format of the encryption, which must be the image's (luks,
//     or aes for the old way), and the id of the secret with the passphrase.
//   - overlap-check: which metadata is guarded against being overwritten.
//
// All but the children can change on reopen; left out, they return to their
// defaults, but for encrypt. A secret that is named anew is not looked at.
package qcow2
