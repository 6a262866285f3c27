package control

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/qmpblock/qmpblock/chardev"
	"github.com/qmpblock/qmpblock/fdset"
	"github.com/qmpblock/qmpblock/jsonrpc"
	"github.com/qmpblock/qmpblock/keyval"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/qmp"
	"github.com/qmpblock/qmpblock/schema"
	"github.com/qmpblock/qmpblock/sockets"
)

// monitor is a QMP monitor and the character device it sits on.
type monitor struct {
	frontend *chardev.Frontend
	qmp      *qmp.Monitor
	inst     *Instance
}

// source lets the protocol take connections from a character device.
type source struct{ *chardev.Frontend }

func (s source) Accept(ctx context.Context) (qmp.Conn, error) { return s.Frontend.Accept(ctx) }

func (m *monitor) serve(ctx context.Context) {
	if err := m.qmp.Serve(ctx, source{m.frontend}); err != nil {
		m.inst.cfg.Log.Error().Err(err).Str("chardev", m.frontend.Chardev().Label()).Msg("a monitor ended")
	}
}

// AddMonitor makes a monitor as --monitor says.
func (i *Instance) AddMonitor(v qjson.Value, mode schema.Mode) error {
	o, err := schema.DecodeMonitorOptions(v, mode)
	if err != nil {
		return err
	}
	if o.Mode != nil && *o.Mode == schema.MonitorModeReadline {
		return qerr.New("Only QMP is supported")
	}
	return i.addMonitor(o.Chardev, deref(o.Pretty))
}

// AddMonitorLegacy makes a monitor as the system emulator's -mon says.
func (i *Instance) AddMonitorLegacy(text string) error {
	v, help, err := keyval.ParseOption(text, "chardev")
	if err != nil {
		return err
	}
	if help {
		return keyval.ErrNoHelp()
	}
	o, err := schema.DecodeMonitorOptions(v, schema.Keyval)
	if err != nil {
		return err
	}
	if o.Mode == nil || *o.Mode == schema.MonitorModeReadline {
		return qerr.New("Only QMP is supported")
	}
	return i.addMonitor(o.Chardev, deref(o.Pretty))
}

// AddQMP makes a monitor and its character device in one, as -qmp says:
// "unix:PATH,server=on,wait=off", "tcp:HOST:PORT,…" or "stdio".
func (i *Instance) AddQMP(device string, pretty bool) error {
	label := fmt.Sprintf("compat_monitor%d", i.monitors)
	options, err := chardevOptions(device)
	if err != nil {
		return err
	}
	if err := i.AddChardev(options + ",id=" + label); err != nil {
		return err
	}
	return i.addMonitor(label, pretty)
}

// chardevOptions translates the short notation of devices to options.
func chardevOptions(device string) (string, error) {
	kind, rest, _ := strings.Cut(device, ":")
	switch kind {
	case "unix":
		return "socket,path=" + rest, nil
	case "tcp":
		address, options, _ := strings.Cut(rest, ",")
		host, port, ok := strings.Cut(address, ":")
		if !ok || port == "" {
			return "", qerr.New("parse error: %s", device)
		}
		if options != "" {
			options = "," + options
		}
		return "socket,host=" + host + ",port=" + port + options, nil
	case "stdio", "null":
		return device, nil
	}
	return "", qerr.New("'%s' is not a valid char driver", device)
}

func (i *Instance) addMonitor(label string, pretty bool) error {
	c := i.chardevs.Get(label)
	if c == nil {
		return qerr.New(`chardev "%s" not found`, label)
	}
	f, err := c.Attach()
	if err != nil {
		return err
	}
	m := &monitor{frontend: f, inst: i}
	m.qmp = qmp.NewMonitor(qmp.Config{
		Dispatcher: i.dispatcher,
		Events:     i.events,
		Version:    i.version.AppendJSON(nil),
		Pretty:     pretty,
		Log:        i.cfg.Log,
	})
	i.monitors++
	// Clients are greeted at once; their commands wait for Start.
	i.serving.Go(func() { m.serve(i.ctx) })
	return nil
}

// AddChardev makes a character device as --chardev says.
func (i *Instance) AddChardev(text string) error {
	l, err := chardev.ParseLegacy(text)
	for _, w := range l.Warnings {
		i.cfg.Notice("warning: " + w)
	}
	if err != nil {
		return err
	}
	if _, stdio := l.Backend.(*chardev.Stdio); stdio && i.cfg.Background {
		return qerr.New("cannot use stdio with -daemonize")
	}
	made, err := i.chardevs.AddLegacy(i.ctx, l)
	if made.PTY != "" {
		fmt.Fprintf(i.cfg.Stdout, "char device redirected to %s (label %s)\n", made.PTY, l.ID)
	}
	return err
}

// namedFDs are the descriptors that clients of the session's monitor named.
// Clients of other protocols, whose session is nil, share one set.
func (i *Instance) namedFDs(s *qmp.Session) *fdset.Named {
	m := s.Monitor()
	if i.named[m] == nil {
		i.named[m] = &fdset.Named{}
	}
	return i.named[m]
}

// fdSource hands out the descriptors that clients named, to sockets that are
// to be made of them. The daemon has no command that names one.
func (i *Instance) fdSource() sockets.FDSource {
	if i.cfg.Personality != System {
		return sockets.NoFDs
	}
	return func(ctx context.Context, name string) (*os.File, error) {
		return i.namedFDs(qmp.SessionFrom(ctx)).Take(name)
	}
}

// ListenJSONRPC serves the commands over JSON-RPC 2.0 as well.
func (i *Instance) ListenJSONRPC(spec string) error {
	l, err := jsonrpc.Listen(i.ctx, spec, jsonrpc.Config{Executor: qmp.Answerer{Dispatcher: i.dispatcher}, Events: i.events, Log: i.cfg.Log})
	if err != nil {
		return err
	}
	i.listeners = append(i.listeners, l)
	return nil
}

// JSONRPC lists where JSON-RPC is served, with the ports that were chosen.
func (i *Instance) JSONRPC() []string {
	var urls []string
	for _, l := range i.listeners {
		urls = append(urls, l.URL())
	}
	return urls
}
