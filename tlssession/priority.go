package tlssession

import (
	"crypto/tls"
	"slices"
	"strings"

	"github.com/qmpblock/qmpblock/qerr"
)

// versions are the oldest and newest version that a session may use.
type versions struct{ min, max uint16 }

// parsePriority reads GnuTLS's priority string, "" for the default. Of what it
// can say, the versions count: which ciphers are good enough crypto/tls
// decides. Words about ciphers and the like would be ignored, so they are
// refused.
func parsePriority(text string) (versions, error) {
	all := []uint16{tls.VersionTLS12, tls.VersionTLS13}
	if text == "" {
		return versions{all[0], all[1]}, nil
	}
	words := strings.Split(strings.ToUpper(text), ":")
	if !slices.Contains([]string{"NORMAL", "PERFORMANCE", "PFS", "SECURE128", "@SYSTEM"}, words[0]) {
		return versions{}, errPriority(text, "The request is invalid.")
	}
	enabled := slices.Clone(all)
	for _, word := range words[1:] {
		name, ok := strings.CutPrefix(strings.TrimLeft(word, "+-!"), "VERS-")
		if !ok || len(word) == len("VERS-")+len(name) {
			return versions{}, errPriority(text, "only versions can be chosen")
		}
		var meant []uint16
		switch name {
		case "ALL", "TLS-ALL":
			meant = all
		case "TLS1.2":
			meant = all[:1]
		case "TLS1.3":
			meant = all[1:]
		}
		enabled = slices.DeleteFunc(enabled, func(v uint16) bool { return slices.Contains(meant, v) })
		if word[0] == '+' {
			enabled = append(enabled, meant...)
		}
	}
	if len(enabled) == 0 {
		return versions{}, errPriority(text, "No or insufficient priorities were set.")
	}
	return versions{slices.Min(enabled), slices.Max(enabled)}, nil
}

func errPriority(text, why string) error {
	return qerr.New("Cannot set default TLS session priority %s: %s", text, why)
}
