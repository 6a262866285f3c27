package chardev

import (
	"fmt"
	"math"

	"github.com/qmpblock/qmpblock/keyval"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/sockets"
)

// Help says which help a --chardev option asks for.
type Help uint8

// What can be asked for.
const (
	NoHelp       Help = iota
	HelpBackends      // the kinds of backends, see [Set.BackendsHelp]
	HelpOptions       // the options, see [OptionsHelp]
)

// Legacy is a --chardev option.
type Legacy struct {
	ID       string
	Backend  Backend
	Mux      bool     // a mux stands in front of the backend
	Help     Help     // if not NoHelp, there is no ID and no Backend
	Warnings []string // lines for the user, without the word "warning"
}

// OptionsHelp lists the options of --chardev, one a line.
func OptionsHelp() string { return legacyOptions().HelpText("chardev options:") }

func legacyOptions() *keyval.OptsList {
	list := &keyval.OptsList{Implied: "backend", WarnShortForm: true}
	for typ, names := range map[keyval.OptType][]string{
		keyval.OptString: {
			"backend", "path", "input-path", "host", "port", "fd", "localaddr", "localport", "tls-creds", "tls-authz", "name",
			"chardev", "chardevs.0", "chardevs.1", "chardevs.2", "chardevs.3", "logfile",
		},
		keyval.OptBool: {
			"ipv4", "ipv6", "wait", "server", "delay", "nodelay", "telnet", "tn3270", "websocket", "mux", "signal", "append",
			"logappend", "mouse", "clipboard", "abstract", "tight",
		},
		keyval.OptNumber: {"to", "reconnect", "reconnect-ms", "width", "height", "cols", "rows", "debug"},
		keyval.OptSize:   {"size"},
	} {
		for _, name := range names {
			list.Options = append(list.Options, keyval.OptDesc{Name: name, Type: typ})
		}
	}
	return list
}

// ParseLegacy reads the text of a --chardev option. The result is never nil, so
// that its warnings can be printed before the error.
//
// Errors are the reference's (observed: transcript cli/monitor-errors).
func ParseLegacy(text string) (*Legacy, error) {
	o, err := legacyOptions().Parse(text)
	l := &Legacy{ID: o.ID, Warnings: o.Warnings}
	if err != nil {
		return l, err
	}
	name := o.Str("backend")
	switch {
	case o.Help:
		l.Help = HelpOptions
		return l, nil
	case name == "help" || name == "?":
		l.Help = HelpBackends
		return l, nil
	case !o.HasID:
		return l, qerr.New("chardev: no id specified")
	case !o.Has("backend"):
		return l, qerr.New(`chardev: "%s" missing backend`, o.ID)
	}
	l.Mux = o.Bool("mux", false)
	if l.Backend, err = legacyBackend(name, o); err != nil {
		return l, err
	}
	c := l.Backend.common()
	c.LogFile, c.LogAppend = str(o, "logfile"), o.Bool("logappend", false)
	return l, nil
}

func legacyBackend(name string, o *keyval.Opts) (Backend, error) {
	path := o.Str("path")
	switch name {
	case "file":
		return &File{Out: path, In: str(o, "input-path"), Append: o.Bool("append", false)}, need(o, "path", "file: no filename given")
	case "serial":
		return &Serial{Device: path}, need(o, "path", "serial/tty: no device path given")
	case "parallel":
		return &Parallel{Device: path}, need(o, "path", "parallel: no device path given")
	case "pipe":
		return &Pipe{Device: path}, need(o, "path", "pipe: no device path given")
	case "mux":
		return &Mux{Chardev: o.Str("chardev")}, need(o, "chardev", "mux: no chardev given")
	case "socket":
		return legacySocket(o)
	case "udp":
		return legacyUDP(o)
	case "hub":
		return legacyHub(o), nil
	case "pty":
		return &PTY{Path: str(o, "path")}, nil
	case "stdio":
		return &Stdio{Signal: boolean(o, "signal")}, nil
	case "ringbuf":
		return legacyRingbuf(o), nil
	case "memory":
		return &Memory{*legacyRingbuf(o)}, nil
	case "null":
		return &Null{}, nil
	}
	return nil, errUnknownKind(name)
}

func errUnknownKind(name string) error {
	return qerr.New("'%s' is not a valid char driver name", name)
}

func need(o *keyval.Opts, name, complaint string) error {
	if o.Has(name) {
		return nil
	}
	return qerr.New("chardev: %s", complaint)
}

func legacyRingbuf(o *keyval.Opts) *Ringbuf {
	r := &Ringbuf{}
	if size := o.Size("size", 0); size != 0 {
		r.Size = new(int64(min(size, math.MaxInt64)))
	}
	return r
}

// legacyHub reads chardevs.0 and on, as far as there is no gap.
func legacyHub(o *keyval.Opts) *Hub {
	h := &Hub{}
	for i := range maxHub {
		name := fmt.Sprintf("chardevs.%d", i)
		if !o.Has(name) {
			break
		}
		h.Chardevs = append(h.Chardevs, o.Str(name))
	}
	return h
}

func legacySocket(o *keyval.Opts) (Backend, error) {
	given := 0
	for _, name := range []string{"path", "fd", "host"} {
		if o.Has(name) {
			given++
		}
	}
	switch {
	case given > 1:
		return nil, qerr.New("None or one of 'path', 'fd' or 'host' option required.")
	case o.Has("host") && !o.Has("port"):
		return nil, qerr.New("chardev: socket: no port given")
	case o.Has("delay") && o.Has("nodelay"):
		return nil, qerr.New("'delay' and 'nodelay' are mutually exclusive")
	}
	s := &Socket{
		Addr:        legacyAddress(o),
		Server:      new(o.Bool("server", false)),
		Wait:        boolean(o, "wait"),
		NoDelay:     boolean(o, "nodelay"),
		Reconnect:   number(o, "reconnect"),
		ReconnectMS: number(o, "reconnect-ms"),
		TLSCreds:    str(o, "tls-creds"),
		TLSAuthz:    str(o, "tls-authz"),
		Telnet:      o.Bool("telnet", false),
		TN3270:      o.Bool("tn3270", false),
		WebSocket:   o.Bool("websocket", false),
	}
	if *s.Server && s.Wait == nil {
		s.Wait = new(true) // unlike chardev-add
	}
	return s, nil
}

func legacyAddress(o *keyval.Opts) sockets.Address {
	switch {
	case o.Has("path"):
		a := &sockets.UnixAddress{Path: o.Str("path"), Abstract: boolean(o, "abstract"), Tight: boolean(o, "tight")}
		return sockets.Address{Unix: a}
	case o.Has("host"):
		a := legacyInet(o, "host", "port")
		a.IPv4, a.IPv6 = boolean(o, "ipv4"), boolean(o, "ipv6")
		if o.Has("to") {
			a.To = new(uint16(o.Number("to", 0)))
		}
		return sockets.Address{Inet: a}
	}
	return sockets.Address{FD: new(o.Str("fd"))}
}

func legacyInet(o *keyval.Opts, host, port string) *sockets.InetAddress {
	return &sockets.InetAddress{Host: o.Str(host), Port: o.Str(port)}
}

func legacyUDP(o *keyval.Opts) (Backend, error) {
	if o.Str("port") == "" {
		return nil, qerr.New("chardev: udp: remote port not specified")
	}
	u := &UDP{Remote: sockets.Address{Inet: legacyInet(o, "host", "port")}}
	u.Remote.Inet.IPv4, u.Remote.Inet.IPv6 = boolean(o, "ipv4"), boolean(o, "ipv6")
	if o.Has("localaddr") || o.Has("localport") {
		u.Local = &sockets.Address{Inet: legacyInet(o, "localaddr", "localport")}
	}
	return u, nil
}

// The functions below give nil for an option that is not there.

func str(o *keyval.Opts, name string) *string {
	if !o.Has(name) {
		return nil
	}
	return new(o.Str(name))
}

func boolean(o *keyval.Opts, name string) *bool {
	if !o.Has(name) {
		return nil
	}
	return new(o.Bool(name, false))
}

func number(o *keyval.Opts, name string) *int64 {
	if !o.Has(name) {
		return nil
	}
	return new(int64(o.Number(name, 0)))
}
