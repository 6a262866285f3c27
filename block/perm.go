package block

import "strings"

// Perm is a set of permissions on a node.
type Perm uint8

// The permissions, as in the QAPI type BlockPermission.
const (
	// PermConsistentRead: reading what was written last; not had on a node
	// whose content is in flux.
	PermConsistentRead Perm = 1 << iota
	// PermWrite: changing the visible content.
	PermWrite
	// PermWriteUnchanged: writing without changing the visible content.
	PermWriteUnchanged
	// PermResize: changing the length.
	PermResize

	PermAll = PermConsistentRead | PermWrite | PermWriteUnchanged | PermResize
)

const permBits = 4

// permNames are the words error messages use.
var permNames = [permBits]string{"consistent read", "write", "write unchanged", "resize"}

// String lists the permissions as an error message does.
func (p Perm) String() string {
	var names []string
	for i, name := range permNames {
		if p&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// Role says what a child is for its parent.
type Role uint8

// The roles; a child can have several.
const (
	// RoleData: guest data is stored there.
	RoleData Role = 1 << iota
	// RoleMetadata: the parent's own data is stored there.
	RoleMetadata
	// RoleFiltered: the parent shows the child's data unchanged.
	RoleFiltered
	// RoleCOW: a backing file.
	RoleCOW
	// RolePrimary: the one child that matters most (its name, its size).
	RolePrimary

	// RoleImage is a format's file child.
	RoleImage = RoleData | RoleMetadata | RolePrimary
	// RoleFilter is a filter's main child.
	RoleFilter = RoleFiltered | RolePrimary
)

// DefaultPerms are the permissions which a node n takes and shares on a child
// in the given role, when its own users take perm and share shared.
func DefaultPerms(n *Node, role Role, reopen *ReopenState, perm, shared Perm) (Perm, Perm) {
	switch {
	case role&RoleFiltered != 0:
		return perm, shared
	case role&RoleCOW != 0:
		return cowPerms(n, perm, shared)
	default:
		return storagePerms(n, role, reopen, perm, shared)
	}
}

// cowPerms: a backing file is only read. It may be written to only if the
// overlay's users expect its content to change anyway.
func cowPerms(n *Node, perm, shared Perm) (Perm, Perm) {
	perm &= PermConsistentRead
	if shared&PermWrite != 0 {
		shared = PermWrite | PermResize
	} else {
		shared = 0
	}
	shared |= PermConsistentRead | PermWriteUnchanged
	if n.flags&FlagInactive != 0 {
		shared |= PermWrite | PermResize
	}
	return perm, shared
}

// storagePerms: metadata belongs to the parent alone, so nobody else may write
// or resize; data is shared as the parent's users share it.
func storagePerms(n *Node, role Role, reopen *ReopenState, perm, shared Perm) (Perm, Perm) {
	writable := n.writableAfter(reopen)
	if role&RoleMetadata != 0 {
		if writable {
			perm |= PermWrite | PermResize
		}
		perm |= PermConsistentRead
		shared &^= PermWrite | PermResize
	}
	if role&RoleData != 0 {
		shared &^= PermResize
		if perm&PermWriteUnchanged != 0 {
			perm |= PermWrite
		}
		if perm&PermWrite != 0 {
			perm |= PermResize
		}
	}
	if n.flags&FlagInactive != 0 {
		shared |= PermWrite | PermResize
	}
	return perm, shared
}
