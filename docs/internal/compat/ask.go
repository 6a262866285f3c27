package main

import (
	"fmt"

	"github.com/qmpblock/qmpblock/qjson"
)

// The questions by which a daemon, ours or the reference, tells what it
// offers.
const (
	askSchema   = "query-qmp-schema"
	askChardevs = "query-chardev-backends"
)

// ask asks by QMP; execute runs a command that takes no arguments.
func ask(execute func(command string) (qjson.Value, error)) (offer, error) {
	o := offer{}
	entries, err := execute(askSchema)
	if err != nil {
		return nil, err
	}
	if err := o.addSchema(entries); err != nil {
		return nil, err
	}
	backends, err := execute(askChardevs)
	if err != nil {
		return nil, err
	}
	o.addNames(chardev, backends)
	return o, nil
}

// addNames adds the member "name" of each element.
func (o offer) addNames(k kind, elements qjson.Value) {
	for e := range elements.Elems() {
		o.add(k, e.Get("name").Str(), "")
	}
}

// enums are the members of commands whose values a client can choose from.
var enums = map[kind]struct{ command, member string }{
	driver:  {"blockdev-add", "driver"},
	exports: {"block-export-add", "type"},
}

// addSchema adds the commands, the events, and the values of enums.
func (o offer) addSchema(entries qjson.Value) error {
	types := map[string]qjson.Value{}
	for e := range entries.Elems() {
		types[e.Get("name").Str()] = e
		switch meta := kind(e.Get("meta-type").Str()); meta {
		case command, event:
			o.add(meta, e.Get("name").Str(), "")
		}
	}
	for k, in := range enums {
		found := false
		for m := range types[types[in.command].Get("arg-type").Str()].Get("members").Elems() {
			if m.Get("name").Is(in.member) {
				o.addNames(k, types[m.Get("type").Str()].Get("members"))
				found = true
			}
		}
		if !found {
			return fmt.Errorf("%s has no member '%s'", in.command, in.member)
		}
	}
	return nil
}
