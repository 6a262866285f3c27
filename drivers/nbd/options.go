package nbd

import (
	"context"
	"net"
	"os"
	"strings"
	"time"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/keyval"
	"github.com/qmpblock/qmpblock/nbd"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/sockets"
)

const (
	optServer         = "server"
	optPath           = "path"
	optHost           = "host"
	optPort           = "port"
	optExport         = "export"
	optTLSCreds       = "tls-creds"
	optTLSHostname    = "tls-hostname"
	optContext        = "x-dirty-bitmap"
	optReconnectDelay = "reconnect-delay"
	optOpenTimeout    = "open-timeout"

	defaultPort = "10809"
)

// options are what a node was opened with.
type options struct {
	address  sockets.Address
	fd       *os.File // the socket that address means, if it is one of type fd
	export   *string
	startTLS func(net.Conn) (net.Conn, error)
	context  string // the meta context
	delay    time.Duration
	timeout  time.Duration // of opening
}

func takeOptions(a *block.OpenArgs) (o *options, err error) {
	o = &options{context: nbd.ContextAllocation}
	if o.delay, err = takeSeconds(a.Options, optReconnectDelay); err != nil {
		return nil, err
	}
	if o.timeout, err = takeSeconds(a.Options, optOpenTimeout); err != nil {
		return nil, err
	}
	if err := o.takeNames(a.Options); err != nil {
		return nil, err
	}
	if err := useLegacy(a.Options); err != nil {
		return nil, err
	}
	if o.address, err = takeAddress(a.Options.Sub(optServer, true)); err != nil {
		return nil, err
	}
	if o.address.FD != nil {
		if o.fd, err = a.Graph().SocketFD(*o.address.FD); err != nil {
			return nil, err
		}
	}
	if err := o.takeTLS(a); err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

// close gives up a descriptor that was not used.
func (o *options) close() {
	if o.fd != nil {
		o.fd.Close()
		o.fd = nil
	}
}

// maxSeconds is about as long as a [time.Duration] can be.
const maxSeconds = 1 << 33

func takeSeconds(o *block.Options, key string) (time.Duration, error) {
	n, err := o.TakeNumber(key, 0)
	return time.Duration(min(n, maxSeconds)) * time.Second, err
}

func (o *options) takeNames(from *block.Options) error {
	if from.Has(optExport) {
		o.export = new(from.TakeString(optExport, ""))
		if len(*o.export) > nbd.MaxString {
			return qerr.New("export name too long to send to server")
		}
	}
	o.context = from.TakeString(optContext, o.context)
	if len(o.context) > nbd.MaxString {
		return qerr.New("x-dirty-bitmap query too long to send to server")
	}
	return nil
}

func (o *options) takeTLS(a *block.OpenArgs) error {
	host := a.Options.TakeString(optTLSHostname, "")
	if host == "" && o.address.Inet != nil {
		host = o.address.Inet.Host
	}
	if !a.Options.Has(optTLSCreds) {
		return nil
	}
	start, err := a.Graph().TLSClient(a.Options.TakeString(optTLSCreds, ""))
	if err == nil {
		o.startTLS = func(conn net.Conn) (net.Conn, error) { return start(conn, host) }
	}
	return err
}

// fdSource hands out the socket once: a connection that was lost does not come
// back.
func (o *options) fdSource(_ context.Context, name string) (*os.File, error) {
	f := o.fd
	o.fd = nil
	if f == nil {
		return nil, qerr.New("File descriptor '%s' is not a socket", name)
	}
	return f, nil
}

// useLegacy turns path, host and port into an address.
func useLegacy(o *block.Options) error {
	path, host, port := o.Has(optPath), o.Has(optHost), o.Has(optPort)
	switch {
	case path && host:
		return qerr.New("path and host may not be used at the same time")
	case path && port:
		return qerr.New("port may not be used without host")
	case (path || host || port) && o.HasSub(optServer):
		return qerr.New("Cannot use 'server' and path/host/port at the same time")
	case path:
		o.Set("server.type", block.StringOpt("unix"))
		o.Set("server.path", block.StringOpt(o.TakeString(optPath, "")))
	case host:
		o.Set("server.type", block.StringOpt("inet"))
		o.Set("server.host", block.StringOpt(o.TakeString(optHost, "")))
		o.Set("server.port", block.StringOpt(o.TakeString(optPort, defaultPort)))
	}
	return nil
}

// takeAddress reads a SocketAddress. Through QMP it has passed the schema
// before, and nothing can be wrong with it.
func takeAddress(o *block.Options) (a sockets.Address, err error) {
	if o.Len() == 0 {
		return a, qerr.New("NBD server address missing")
	}
	t := addressTaker{o: o}
	switch kind := t.string("type"); kind {
	case "inet":
		a.Inet = &sockets.InetAddress{Host: t.string("host"), Port: t.string("port")}
		a.Inet.Numeric, a.Inet.To = t.bool("numeric"), t.uint16("to")
		a.Inet.IPv4, a.Inet.IPv6 = t.bool("ipv4"), t.bool("ipv6")
		a.Inet.KeepAlive, a.Inet.MPTCP = t.bool("keep-alive"), t.bool("mptcp")
	case "unix":
		a.Unix = &sockets.UnixAddress{Path: t.string("path"), Abstract: t.bool("abstract"), Tight: t.bool("tight")}
	case "vsock":
		a.Vsock = &sockets.VsockAddress{CID: t.string("cid"), Port: t.string("port")}
	case "fd":
		a.FD = new(t.string("str"))
	default:
		t.fail("Parameter 'type' does not accept value '%s'", kind)
	}
	if keys := o.Keys(); len(keys) > 0 {
		t.fail("Parameter '%s' is unexpected", keys[0])
	}
	return a, t.err
}

// addressTaker takes members; the first mistake counts.
type addressTaker struct {
	o   *block.Options
	err error
}

func (t *addressTaker) fail(format string, args ...any) {
	if t.err == nil {
		t.err = qerr.New(format, args...)
	}
}

func (t *addressTaker) string(key string) string {
	if !t.o.Has(key) {
		t.fail("Parameter '%s' is missing", key)
	}
	return t.o.TakeString(key, "")
}

func (t *addressTaker) bool(key string) *bool {
	if !t.o.Has(key) {
		return nil
	}
	on, err := t.o.TakeBool(key, false)
	if err != nil {
		t.fail("%s", err.Error())
	}
	return &on
}

func (t *addressTaker) uint16(key string) *uint16 {
	if !t.o.Has(key) {
		return nil
	}
	n, err := keyval.ParseUint(t.o.TakeString(key, ""))
	if err != nil || n > 1<<16-1 {
		t.fail("Parameter '%s' expects integer", key)
	}
	return new(uint16(n))
}

// maxFilename is the room for a plain file name; longer ones are written as
// json: names.
const maxFilename = 4095

// filename is the URL of a node, "" if there is none that says all. Nothing in
// it is escaped (observed).
func (o *options) filename() string {
	var b strings.Builder
	switch a := o.address; {
	case a.Inet != nil && a.Inet.IPv4 == nil && a.Inet.IPv6 == nil && a.Inet.To == nil:
		b.WriteString("nbd://" + a.Inet.Host + ":" + a.Inet.Port)
		o.writeExport(&b)
	case a.Unix != nil:
		b.WriteString("nbd+unix://")
		o.writeExport(&b)
		b.WriteString("?socket=" + a.Unix.Path)
	}
	if b.Len() > maxFilename {
		return ""
	}
	return b.String()
}

func (o *options) writeExport(b *strings.Builder) {
	if o.export != nil {
		b.WriteString("/" + *o.export)
	}
}
