package qom

import (
	"strings"

	"github.com/qmpblock/qmpblock/qerr"
)

// Resolve finds the object of a path. A path without a slash at its start is
// looked for below every object; when more than one fits, err says that it is
// ambiguous. Neither the root's own name nor doubled slashes matter.
func (t *Tree) Resolve(path string) (*Object, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	parts := strings.Split(path, "/")
	if strings.HasPrefix(path, "/") {
		if o := descend(t.root, parts); o != nil {
			return o, nil
		}
		return nil, notFound(path)
	}
	o, ambiguous := search(t.root, parts)
	switch {
	case ambiguous:
		return nil, qerr.New("Path '%s' is ambiguous", path)
	case o == nil:
		return nil, notFound(path)
	}
	return o, nil
}

func notFound(path string) error {
	return qerr.WithClass(qerr.DeviceNotFound, "Device '%s' not found", path)
}

// descend follows the parts of a path from o on, nil if there is no such child.
func descend(o *Object, parts []string) *Object {
	for _, part := range parts {
		if part == "" {
			continue
		}
		if o = o.child(part); o == nil {
			return nil
		}
	}
	return o
}

// search looks for the parts of a path below o and below all its descendants.
func search(o *Object, parts []string) (found *Object, ambiguous bool) {
	found = descend(o, parts)
	for _, p := range o.properties.All() {
		if p.child == nil {
			continue
		}
		other, ambiguous := search(p.child, parts)
		if ambiguous || other != nil && found != nil {
			return nil, true
		}
		if other != nil {
			found = other
		}
	}
	return found, false
}
