package control

import (
	"context"

	"github.com/qmpblock/qmpblock/schema"
)

// Package is the version text of the reference's package: clients print it,
// and some compare it.
const Package = "Debian 1:10.0.2+ds-2+deb13u1~bpo12+1"

// versionInfo is the release that an instance answers as.
func versionInfo() *schema.VersionInfo {
	return &schema.VersionInfo{
		Qemu:    schema.VersionTriple{Major: 10, Minor: 0, Micro: 2},
		Package: Package,
	}
}

func (i *Instance) registerControl(t *schema.Table) {
	t.QueryVersion(func(context.Context) (*schema.VersionInfo, error) { return i.version, nil })
	t.QueryCommands(func(context.Context) ([]*schema.CommandInfo, error) { return commandList(t), nil })
	t.QueryQmpSchema(func(context.Context) ([]*schema.SchemaInfo, error) { return t.Introspect(), nil })
	t.Quit(i.quit)
}

// commandList names every command, the last of the schema first.
func commandList(t *schema.Table) []*schema.CommandInfo {
	commands := t.Commands()
	list := make([]*schema.CommandInfo, len(commands))
	for k, c := range commands {
		list[len(list)-1-k] = &schema.CommandInfo{Name: c.Name}
	}
	return list
}
