package control

import (
	"context"

	"github.com/qmpblock/qmpblock/chardev"
	"github.com/qmpblock/qmpblock/schema"
)

func (i *Instance) registerChar(t *schema.Table) {
	t.QueryChardev(i.queryChardev)
	t.QueryChardevBackends(i.queryChardevBackends)
	t.ChardevAdd(i.chardevAdd)
	t.ChardevChange(i.chardevChange)
	t.ChardevRemove(func(_ context.Context, a *schema.ChardevRemoveArguments) error { return i.chardevs.Remove(a.Id) })
	t.ChardevSendBreak(func(_ context.Context, a *schema.ChardevSendBreakArguments) error { return i.chardevs.SendBreak(a.Id) })
	t.RingbufWrite(i.ringbufWrite)
	t.RingbufRead(i.ringbufRead)
}

func (i *Instance) queryChardev(context.Context) ([]*schema.ChardevInfo, error) {
	infos := []*schema.ChardevInfo{}
	for _, c := range i.chardevs.List() {
		infos = append(infos, &schema.ChardevInfo{Label: c.Label, Filename: c.Filename, FrontendOpen: c.FrontendOpen})
	}
	return infos, nil
}

func (i *Instance) queryChardevBackends(context.Context) ([]*schema.ChardevBackendInfo, error) {
	infos := []*schema.ChardevBackendInfo{}
	for _, name := range i.chardevs.Backends() {
		infos = append(infos, &schema.ChardevBackendInfo{Name: name})
	}
	return infos, nil
}

func (i *Instance) chardevAdd(ctx context.Context, a *schema.ChardevAddArguments) (*schema.ChardevReturn, error) {
	return chardevReturn(i.chardevs.Add(ctx, a.Id, chardevBackend(&a.Backend)))
}

func (i *Instance) chardevChange(ctx context.Context, a *schema.ChardevChangeArguments) (*schema.ChardevReturn, error) {
	return chardevReturn(i.chardevs.Change(ctx, a.Id, chardevBackend(&a.Backend)))
}

func chardevReturn(r chardev.Return, err error) (*schema.ChardevReturn, error) {
	if err != nil {
		return nil, err
	}
	answer := &schema.ChardevReturn{}
	if r.PTY != "" {
		answer.Pty = &r.PTY
	}
	return answer, nil
}

func (i *Instance) ringbufWrite(_ context.Context, a *schema.RingbufWriteArguments) error {
	return i.chardevs.RingbufWrite(a.Device, a.Data, isBase64(a.Format))
}

func (i *Instance) ringbufRead(_ context.Context, a *schema.RingbufReadArguments) (string, error) {
	return i.chardevs.RingbufRead(a.Device, a.Size, isBase64(a.Format))
}

func isBase64(f *schema.DataFormat) bool { return f != nil && *f == schema.DataFormatBase64 }

// chardevBackend turns the schema's options into those of the device.
func chardevBackend(b *schema.ChardevBackend) chardev.Backend {
	switch v := b.Variant.(type) {
	case *schema.ChardevFileWrapper:
		d := &v.Data
		return &chardev.File{Common: chardevCommon(d.Logfile, d.Logappend), Out: d.Out, In: d.In, Append: deref(d.Append)}
	case *schema.ChardevHostdevWrapper:
		return hostdev(b.Type, &v.Data)
	case *schema.ChardevSocketWrapper:
		return chardevSocket(&v.Data)
	case *schema.ChardevUdpWrapper:
		d := &v.Data
		u := &chardev.UDP{Common: chardevCommon(d.Logfile, d.Logappend), Remote: socketAddressLegacy(&d.Remote)}
		if d.Local != nil {
			local := socketAddressLegacy(d.Local)
			u.Local = &local
		}
		return u
	case *schema.ChardevPtyWrapper:
		return &chardev.PTY{Common: chardevCommon(v.Data.Logfile, v.Data.Logappend), Path: v.Data.Path}
	case *schema.ChardevMuxWrapper:
		return &chardev.Mux{Common: chardevCommon(v.Data.Logfile, v.Data.Logappend), Chardev: v.Data.Chardev}
	case *schema.ChardevHubWrapper:
		return &chardev.Hub{Common: chardevCommon(v.Data.Logfile, v.Data.Logappend), Chardevs: v.Data.Chardevs}
	case *schema.ChardevStdioWrapper:
		return &chardev.Stdio{Common: chardevCommon(v.Data.Logfile, v.Data.Logappend), Signal: v.Data.Signal}
	case *schema.ChardevRingbufWrapper:
		ring := chardev.Ringbuf{Common: chardevCommon(v.Data.Logfile, v.Data.Logappend), Size: v.Data.Size}
		if b.Type == schema.ChardevBackendKindMemory {
			return &chardev.Memory{Ringbuf: ring}
		}
		return &ring
	case *schema.ChardevCommonWrapper:
		if b.Type == schema.ChardevBackendKindNull {
			return &chardev.Null{Common: chardevCommon(v.Data.Logfile, v.Data.Logappend)}
		}
	}
	return &chardev.Other{Name: b.Type.String()}
}

func chardevCommon(logFile *string, appendTo *bool) chardev.Common {
	return chardev.Common{LogFile: logFile, LogAppend: deref(appendTo)}
}

// hostdev serves the three kinds that take a path of the host.
func hostdev(kind schema.ChardevBackendKind, d *schema.ChardevHostdev) chardev.Backend {
	common := chardevCommon(d.Logfile, d.Logappend)
	switch kind {
	case schema.ChardevBackendKindSerial:
		return &chardev.Serial{Common: common, Device: d.Device}
	case schema.ChardevBackendKindParallel:
		return &chardev.Parallel{Common: common, Device: d.Device}
	}
	return &chardev.Pipe{Common: common, Device: d.Device}
}

func chardevSocket(d *schema.ChardevSocket) *chardev.Socket {
	return &chardev.Socket{
		Common:      chardevCommon(d.Logfile, d.Logappend),
		Addr:        socketAddressLegacy(&d.Addr),
		Server:      d.Server,
		Wait:        d.Wait,
		NoDelay:     d.Nodelay,
		Reconnect:   d.Reconnect,
		ReconnectMS: d.ReconnectMs,
		TLSCreds:    d.TlsCreds,
		TLSAuthz:    d.TlsAuthz,
		Telnet:      deref(d.Telnet),
		TN3270:      deref(d.Tn3270),
		WebSocket:   deref(d.Websocket),
	}
}
