package qom

import "slices"

// StorageDaemonTypes are the types of the storage daemon, fresh for one tree.
// Their order gives the same listing as the reference's (observed: transcript
// objects/qom-types-all).
func StorageDaemonTypes() []*Type {
	return slices.Concat(
		children(typeObject, &Type{Name: "qio-channel", Abstract: true}),
		children("qio-channel",
			&Type{Name: "qio-channel-socket"}, &Type{Name: "qio-channel-command"}, &Type{Name: "qio-channel-null"},
			&Type{Name: "qio-channel-buffer"}, &Type{Name: "qio-channel-websock"}, &Type{Name: "qio-channel-tls"},
			&Type{Name: "qio-channel-file"}),
		children(typeObject, &Type{Name: "qio-dns-resolver"}, &Type{Name: "qio-net-listener"}),
		children(typeInterface, &Type{Name: typeUserCreatable, Abstract: true}),
		children(typeObject, &Type{Name: "pr-manager", Abstract: true, Interfaces: []string{typeUserCreatable}}),
		children("pr-manager", &Type{Name: "pr-manager-helper", Properties: []*Property{{Name: "path", Type: "string"}}}),
		[]*Type{throttleType()},
		children(typeObject, &Type{Name: typeContainer}),
		eventLoopTypes(),
		authzTypes(),
		tlsTypes(),
		chardevTypes(),
		secretTypes(),
		children(typeObject, threadContextType()),
	)
}

func children(parent string, types ...*Type) []*Type {
	for _, typ := range types {
		typ.Parent = parent
	}
	return types
}

// chardevTypes have no properties here: those of sockets come from the package
// that knows what a socket is.
func chardevTypes() []*Type {
	types := children(typeObject, &Type{Name: "chardev", Abstract: true})
	for _, name := range []string{"file", "null", "mux", "ringbuf", "memory", "socket", "pipe", "serial", "stdio", "parallel", "hub", "fd", "udp", "pty"} {
		typ := &Type{Name: "chardev-" + name, Parent: "chardev"}
		switch name {
		case "file", "pipe", "serial", "stdio":
			typ.Parent = "chardev-fd"
		case "memory":
			typ.Parent = "chardev-ringbuf"
		case "fd":
			typ.Abstract = true
		}
		types = append(types, typ)
	}
	return types
}

func threadContextType() *Type {
	return &Type{Name: "thread-context", Interfaces: []string{typeUserCreatable}, Properties: []*Property{
		{Name: "node-affinity", Type: "int"}, {Name: "cpu-affinity", Type: "int"}, {Name: "thread-id", Type: "int", ReadOnly: true},
	}}
}
