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

// addSchema adds the commands, the events, and the drivers that blockdev-add
// knows.
func (o offer) addSchema(entries qjson.Value) error {
	types := map[string]qjson.Value{}
	for e := range entries.Elems() {
		types[e.Get("name").Str()] = e
		switch meta := kind(e.Get("meta-type").Str()); meta {
		case command, event:
			o.add(meta, e.Get("name").Str(), "")
		}
	}
	for m := range types[types["blockdev-add"].Get("arg-type").Str()].Get("members").Elems() {
		if m.Get("name").Is("driver") {
			o.addNames(driver, types[m.Get("type").Str()].Get("members"))
			return nil
		}
	}
	return fmt.Errorf("blockdev-add has no member 'driver'")
}
