package main

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
)

// program is one of the reference's programs.
type program string

const (
	storageDaemon program = "storage-daemon"
	system        program = "system"
)

var programs = []program{storageDaemon, system}

// kind is a sort of thing that a client can name.
type kind string

const (
	command kind = "command"
	event   kind = "event"
	driver  kind = "driver"
	exports kind = "export"
	object  kind = "object"
	chardev kind = "chardev"
	option  kind = "option"
)

var kinds = []kind{command, event, driver, exports, object, chardev, option}

// offer is what a program offers: for each kind the names, and a remark to
// each that needs one.
type offer map[kind]map[string]string

func (o offer) add(k kind, name, remark string) {
	if o[k] == nil {
		o[k] = map[string]string{}
	}
	o[k][name] = remark
}

func (o offer) has(k kind, name string) bool {
	_, ok := o[k][name]
	return ok
}

//go:embed reference.txt
var referenceText string

// reference reads the list of what the reference's programs offer.
func reference() (map[program]offer, error) {
	all := map[program]offer{storageDaemon: {}, system: {}}
	for line := range strings.Lines(referenceText) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		if len(words) < 3 || !slices.Contains(kinds, kind(words[0])) {
			return nil, fmt.Errorf("reference.txt: cannot read %q", line)
		}
		for _, p := range words[2:] {
			o, ok := all[program(p)]
			if !ok {
				return nil, fmt.Errorf("reference.txt: no such program in %q", line)
			}
			o.add(kind(words[0]), words[1], "")
		}
	}
	return all, nil
}

// list writes what reference reads.
func list(all map[program]offer) string {
	var b strings.Builder
	b.WriteString("# What the programs of the reference, version 10.0, offer: kind, name, programs.\n")
	b.WriteString("# Written by: go test ./docs/internal/compat -run TestReferenceList -rewrite\n")
	for _, k := range kinds {
		for _, name := range names(all, k) {
			fmt.Fprintf(&b, "%s %s", k, name)
			for _, p := range programs {
				if all[p].has(k, name) {
					fmt.Fprintf(&b, " %s", p)
				}
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

// names are those that some program offers, sorted.
func names(all map[program]offer, k kind) []string {
	var found []string
	for _, p := range programs {
		for name := range all[p][k] {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}
