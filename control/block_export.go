package control

import (
	"context"
	"net"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/export"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/qmp"
	"github.com/qmpblock/qmpblock/schema"
	"github.com/qmpblock/qmpblock/sockets"
	"github.com/qmpblock/qmpblock/tlssession"
)

// registerBlockExport registers the NBD server and the exports.
func (i *Instance) registerBlockExport(t *schema.Table) {
	t.NbdServerStart(i.nbdServerStart)
	t.NbdServerStop(action(i, i.exports.StopServer))
	t.NbdServerAdd(actionWith(i, i.nbdServerAdd))
	t.NbdServerRemove(func(ctx context.Context, a *schema.NbdServerRemoveArguments) error {
		return i.removeExport(ctx, a.Name, a.Mode)
	})
	t.BlockExportAdd(actionWith(i, i.blockExportAdd))
	t.BlockExportDel(func(ctx context.Context, a *schema.BlockExportDelArguments) error {
		return i.removeExport(ctx, a.Id, a.Mode)
	})
	t.QueryBlockExports(query(i, i.queryBlockExports))
	t.Emits(&schema.BlockExportDeletedEvent{})
}

func (i *Instance) newExports() *export.Set {
	return export.NewSet(export.Config{
		Graph:    i.graph,
		Deleted:  func(id string) { i.emit(&schema.BlockExportDeletedEvent{Id: id}) },
		IOThread: i.iothreadContext,
		StartTLS: i.startTLS,
		Panicked: i.panicked,
		Complain: i.cfg.Complain,
	})
}

// startTLS finds credentials, and whom to ask which clients may come in: an
// object that need not be there yet.
func (i *Instance) startTLS(creds, authz string) (func(net.Conn) (net.Conn, error), error) {
	c, err := i.objects.TLSCredentials(creds, tlssession.Server)
	if err != nil {
		return nil, err
	}
	var allowed tlssession.Authorizer
	if authz != "" {
		allowed = func(identity string) (bool, error) { return i.objects.Authorize(authz, identity) }
	}
	return func(conn net.Conn) (net.Conn, error) { return c.Server(i.ctx, conn, allowed) }, nil
}

func (i *Instance) nbdServerStart(ctx context.Context, a *schema.NbdServerOptionsLegacy) error {
	return i.startServer(ctx, &schema.NbdServerOptions{
		HandshakeMaxSeconds: a.HandshakeMaxSeconds, TlsCreds: a.TlsCreds, TlsAuthz: a.TlsAuthz, MaxConnections: a.MaxConnections,
	}, socketAddressLegacy(&a.Addr), i.fdSource())
}

// The server's limits where none are given.
const (
	defaultHandshakeMax   = 10 // seconds
	defaultMaxConnections = 100
)

func (i *Instance) startServer(ctx context.Context, o *schema.NbdServerOptions, addr sockets.Address, fds sockets.FDSource) error {
	l := i.graph.Main().Acquire()
	defer l.Release()
	return i.exports.StartServer(l, &export.ServerOptions{
		Context:        ctx,
		Addr:           addr,
		FDs:            fds,
		TLSCreds:       o.TlsCreds,
		TLSAuthz:       deref(o.TlsAuthz),
		HandshakeMax:   orDefault(o.HandshakeMaxSeconds, defaultHandshakeMax),
		MaxConnections: orDefault(o.MaxConnections, defaultMaxConnections),
	})
}

// orDefault is the value of an optional member, or what stands for it.
func orDefault[T any](p *T, def T) T {
	if p == nil {
		return def
	}
	return *p
}

func (i *Instance) blockExportAdd(l *aio.Lock, a *schema.BlockExportOptions) error {
	return i.exports.Add(l, exportOptions(a))
}

func exportOptions(a *schema.BlockExportOptions) *export.Options {
	o := &export.Options{
		Type:          export.Type(a.Type.String()),
		ID:            a.Id,
		NodeName:      a.NodeName,
		Writable:      deref(a.Writable),
		WriteThrough:  deref(a.Writethrough),
		IOThread:      a.Iothread,
		FixedIOThread: deref(a.FixedIothread),
		AllowInactive: deref(a.AllowInactive),
	}
	if v, ok := a.Variant.(*schema.BlockExportOptionsNbd); ok {
		o.NBD = &export.NBDOptions{Name: v.Name, Description: v.Description, AllocationDepth: deref(v.AllocationDepth)}
		for _, b := range v.Bitmaps {
			o.NBD.Bitmaps = append(o.NBD.Bitmaps, exportBitmap(b))
		}
	}
	return o
}

func exportBitmap(b *schema.BlockDirtyBitmapOrStr) export.Bitmap {
	if b.External != nil {
		return export.Bitmap{Node: &b.External.Node, Name: b.External.Name}
	}
	return export.Bitmap{Name: *b.Local}
}

// nbdServerAdd is the older notation: the export's name is its id, and of a
// read-only node the export is read-only.
func (i *Instance) nbdServerAdd(l *aio.Lock, a *schema.NbdServerAddOptions) error {
	n, err := i.graph.Lookup(a.Device, a.Device)
	if err != nil {
		return err
	}
	name := orDefault(a.Name, a.Device)
	o := &export.Options{
		Type:     export.NBD,
		ID:       name,
		NodeName: n.Name(),
		Writable: deref(a.Writable) && !n.ReadOnly(),
		NBD:      &export.NBDOptions{Name: &name, Description: a.Description},
	}
	if a.Bitmap != nil {
		o.NBD.Bitmaps = []export.Bitmap{{Name: *a.Bitmap}}
	}
	return i.exports.Add(l, o)
}

// removeExport takes an export away. Of clients that were cut off for it the
// reference takes leave when it comes to its main loop: behind the reply.
func (i *Instance) removeExport(ctx context.Context, id string, mode *schema.BlockExportRemoveMode) error {
	finish, err := i.delExport(id, mode)
	if finish != nil {
		qmp.SessionFrom(ctx).Then(func() {
			l := i.graph.Main().Acquire()
			defer l.Release()
			finish(l)
		})
	}
	return err
}

func (i *Instance) delExport(id string, mode *schema.BlockExportRemoveMode) (finish func(*aio.Lock), err error) {
	l := i.graph.Main().Acquire()
	defer l.Release()
	return i.exports.Del(l, id, exportMode(mode))
}

func exportMode(m *schema.BlockExportRemoveMode) export.Mode {
	if m != nil && *m == schema.BlockExportRemoveModeHard {
		return export.Hard
	}
	return export.Safe
}

func (i *Instance) queryBlockExports(l *aio.Lock) ([]*schema.BlockExportInfo, error) {
	var infos []*schema.BlockExportInfo
	for _, e := range i.exports.List(l) {
		t, ok := schema.ParseEnum[schema.BlockExportType](string(e.Type))
		if !ok {
			return nil, qerr.New("Unknown export type '%s'", e.Type)
		}
		infos = append(infos, &schema.BlockExportInfo{Id: e.ID, Type: t, NodeName: e.NodeName, ShuttingDown: e.ShuttingDown})
	}
	return infos, nil
}

// closeExports takes every export away and stops the server.
func (i *Instance) closeExports() {
	l := i.graph.Main().Acquire()
	defer l.Release()
	i.exports.Close(l)
}

// StartNBDServer starts the NBD server as --nbd-server says, where a
// descriptor is one that the process inherited.
func (i *Instance) StartNBDServer(v qjson.Value, mode schema.Mode) error {
	a, err := schema.DecodeNbdServerOptions(v, mode)
	if err != nil {
		return err
	}
	return i.startServer(context.Background(), a, socketAddress(&a.Addr), sockets.NumberedFD)
}

// AddExport makes an export as --export says.
func (i *Instance) AddExport(v qjson.Value, mode schema.Mode) error {
	a, err := schema.DecodeBlockExportOptions(v, mode)
	if err != nil {
		return err
	}
	return actionWith(i, i.blockExportAdd)(context.Background(), a)
}
