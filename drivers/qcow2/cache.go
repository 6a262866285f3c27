package qcow2

import (
	"slices"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
)

// cache keeps parts of the image's tables in memory, all of one size: slices
// of L2 tables, or refcount blocks. It is guarded by the image's mutex.
//
// A table that was got may be looked at until the next call of get: that one
// can put another in its memory.
type cache struct {
	file  *block.Child
	size  int64 // bytes of a table
	most  int   // tables
	at    map[int64]*table
	dirty []*table
	// lru is the head of the ring of tables, the least recently used after
	// it.
	lru table
	// before is run before tables are written: it makes durable what they
	// refer to.
	before func(co *aio.Co) error
	// check refuses to write over other metadata.
	check func(co *aio.Co, offset, bytes int64) error
	// loads and updates are the events of reading and writing tables.
	loads, updates block.DebugEvent
	// round counts the calls of clean.
	round uint32
}

// table is one entry of a cache.
type table struct {
	offset     int64
	data       []byte
	dirty      bool
	round      uint32
	prev, next *table
}

func newCache(file *block.Child, size int64, most int) *cache {
	c := &cache{file: file, size: size, most: max(most, 2), at: make(map[int64]*table)}
	c.lru.prev, c.lru.next = &c.lru, &c.lru
	return c
}

func (t *table) unlink() { t.prev.next, t.next.prev = t.next, t.prev }

func (c *cache) touch(t *table) {
	t.round = c.round
	if c.lru.prev == t {
		return
	}
	if t.prev != nil {
		t.unlink()
	}
	t.prev, t.next = c.lru.prev, &c.lru
	t.prev.next, c.lru.prev = t, t
}

// holds tells whether get would not have to read.
func (c *cache) holds(offset int64) bool { return c.at[offset] != nil }

// get returns the table at an offset of the file.
func (c *cache) get(co *aio.Co, offset int64) (*table, error) {
	if t := c.at[offset]; t != nil {
		c.touch(t)
		return t, nil
	}
	t, err := c.room(co)
	if err != nil {
		return nil, err
	}
	c.file.Debug(c.loads)
	if err := c.file.CoPreadv(co, offset, block.Vec{t.data}, 0); err != nil {
		return nil, err
	}
	c.enter(t, offset)
	return t, nil
}

// put enters a table that was just written, whose content begins with data.
func (c *cache) put(co *aio.Co, offset int64, data []byte) error {
	t, err := c.room(co)
	if err != nil {
		return err
	}
	copy(t.data, data)
	c.enter(t, offset)
	return nil
}

func (c *cache) enter(t *table, offset int64) {
	t.offset = offset
	c.at[offset] = t
	c.touch(t)
}

// room finds memory for one more table. If the oldest one has changed all that
// have changed are written: that costs one flush, as one alone does.
func (c *cache) room(co *aio.Co) (*table, error) {
	if len(c.at) < c.most {
		return &table{data: block.AlignedMemory(int(c.size))}, nil
	}
	t := c.lru.next
	if t.dirty {
		if err := c.flush(co); err != nil {
			return nil, err
		}
	}
	c.drop(t)
	return t, nil
}

func (c *cache) drop(t *table) {
	t.unlink()
	t.prev, t.next = nil, nil
	delete(c.at, t.offset)
}

func (c *cache) setDirty(t *table) {
	if !t.dirty {
		t.dirty = true
		c.dirty = append(c.dirty, t)
	}
}

// flush writes what has changed. It is not durable by that.
func (c *cache) flush(co *aio.Co) error {
	if len(c.dirty) == 0 {
		return nil
	}
	if c.before != nil {
		if err := c.before(co); err != nil {
			return err
		}
	}
	slices.SortFunc(c.dirty, func(a, b *table) int {
		if a.offset < b.offset {
			return -1
		}
		return 1
	})
	for len(c.dirty) > 0 {
		n, err := c.writeRun(co)
		if err != nil {
			return err
		}
		for _, t := range c.dirty[:n] {
			t.dirty = false
		}
		c.dirty = append(c.dirty[:0], c.dirty[n:]...)
	}
	return nil
}

// maxRun bounds the tables that are written at once.
const maxRun = 256

// writeRun writes the first changed tables that lie side by side.
func (c *cache) writeRun(co *aio.Co) (int, error) {
	first := c.dirty[0]
	v := block.Vec{first.data}
	n := 1
	for n < len(c.dirty) && n < maxRun && c.dirty[n].offset == first.offset+int64(n)*c.size {
		v = append(v, c.dirty[n].data)
		n++
	}
	if err := c.check(co, first.offset, int64(n)*c.size); err != nil {
		return 0, err
	}
	c.file.Debug(c.updates)
	return n, c.file.CoPwritev(co, first.offset, v, 0)
}

// forget drops the tables in an area of the file that holds none any more.
func (c *cache) forget(offset, bytes int64) {
	for at := offset; at < offset+bytes; at += c.size {
		if t := c.at[at]; t != nil {
			c.clearDirty(t)
			c.drop(t)
		}
	}
}

func (c *cache) clearDirty(t *table) {
	if !t.dirty {
		return
	}
	t.dirty = false
	i := slices.Index(c.dirty, t)
	c.dirty = slices.Delete(c.dirty, i, i+1)
}

// empty drops what has not changed.
func (c *cache) empty() {
	for _, t := range c.at {
		if !t.dirty {
			c.drop(t)
		}
	}
}

// clean drops what nobody has used since the last call.
func (c *cache) clean() {
	for t := c.lru.next; t != &c.lru; {
		next := t.next
		if t.round == c.round {
			break // all others are newer
		}
		if !t.dirty {
			c.drop(t)
		}
		t = next
	}
	c.round++
}
