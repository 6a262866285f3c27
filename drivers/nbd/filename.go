package nbd

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/qerr"
)

// parseFilename turns a name into options: a URL, or one of the older forms.
func parseFilename(filename string, o *block.Options) error {
	if strings.Contains(filename, "://") {
		if !parseURL(filename, o) {
			return qerr.New("No valid URL specified")
		}
		return nil
	}
	rest, ok := strings.CutPrefix(filename, "nbd:")
	if !ok {
		return qerr.New("File name string for NBD must start with 'nbd:'")
	}
	rest, export, named := strings.Cut(rest, ":exportname=")
	switch {
	case named && export == "", rest == "":
		return nil // the address is missed later
	case named:
		o.Set(optExport, block.StringOpt(export))
	}
	if path, ok := strings.CutPrefix(rest, "unix:"); ok {
		o.Set("server.type", block.StringOpt("unix"))
		o.Set("server.path", block.StringOpt(path))
		return nil
	}
	host, port, ok := splitAddress(rest)
	if !ok {
		return qerr.New("error parsing address '%s'", rest)
	}
	setInet(o, host, port)
	return nil
}

func setInet(o *block.Options, host, port string) {
	o.Set("server.type", block.StringOpt("inet"))
	o.Set("server.host", block.StringOpt(host))
	o.Set("server.port", block.StringOpt(port))
}

// splitAddress parts HOST:PORT or [HOST]:PORT. Sub-options behind a comma are
// for listeners and say nothing here.
func splitAddress(s string) (host, port string, ok bool) {
	if inner, found := strings.CutPrefix(s, "["); found {
		host, port, ok = strings.Cut(inner, "]:")
	} else {
		host, port, ok = strings.Cut(s, ":")
	}
	port, _, _ = strings.Cut(port, ",")
	return host, port, ok && port != ""
}

// parseURL reads nbd://HOST[:PORT]/EXPORT and nbd+unix:///EXPORT?socket=PATH.
func parseURL(name string, o *block.Options) bool {
	u, err := url.Parse(name)
	if err != nil {
		return false
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return false
	}
	switch u.Scheme {
	case "nbd", "nbd+tcp":
		port, ok := urlPort(u)
		if !ok || u.Hostname() == "" || u.RawQuery != "" {
			return false
		}
		setInet(o, u.Hostname(), port)
	case "nbd+unix":
		path := query["socket"]
		if u.Host != "" || len(query) != 1 || len(path) == 0 || !strings.Contains(u.RawQuery, "=") {
			return false
		}
		o.Set("server.type", block.StringOpt("unix"))
		o.Set("server.path", block.StringOpt(path[len(path)-1]))
	default:
		return false
	}
	if export := strings.TrimPrefix(u.Path, "/"); export != "" {
		o.Set(optExport, block.StringOpt(export))
	}
	return true
}

// urlPort is the port, the usual one if none is given, or 0 is.
func urlPort(u *url.URL) (string, bool) {
	if u.Port() == "" {
		return defaultPort, true
	}
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	if n == 0 {
		return defaultPort, err == nil
	}
	return strconv.FormatUint(n, 10), err == nil
}
