package schema

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// info is an entry of query-qmp-schema, whatever its meta-type.
type info struct {
	Name     string   `json:"name"`
	MetaType string   `json:"meta-type"`
	ArgType  string   `json:"arg-type"`
	RetType  string   `json:"ret-type"`
	AllowOOB bool     `json:"allow-oob"`
	Features []string `json:"features"`
	Element  string   `json:"element-type"`
	JSONType string   `json:"json-type"`
	Values   []string `json:"values"`
	Tag      string   `json:"tag"`
	Members  []struct {
		Name     string          `json:"name"`
		Type     string          `json:"type"`
		Default  json.RawMessage `json:"default"`
		Features []string        `json:"features"`
	} `json:"members"`
	Variants []struct {
		Case string `json:"case"`
		Type string `json:"type"`
	} `json:"variants"`
}

// introspected is one schema with its entries by name.
type introspected map[string]*info

func index(t *testing.T, text []byte) introspected {
	t.Helper()
	var list []*info
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	m := introspected{}
	for _, e := range list {
		if m[e.Name] != nil {
			t.Fatalf("%s is listed twice", e.Name)
		}
		m[e.Name] = e
	}
	return m
}

// reference reads what a release of QEMU answered to query-qmp-schema.
func reference(t *testing.T, name string) introspected {
	t.Helper()
	return index(t, readGzip(t, filepath.Join("testdata", name+".json.gz")))
}

func readGzip(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// ours is the answer of a table in which everything is registered.
func ours(t *testing.T, v Version) introspected {
	t.Helper()
	return index(t, returnList(nil, everything(v).Introspect(), Newest))
}

// everything returns a table with all commands and events.
func everything(v Version) *Table {
	table := NewTableFor(v)
	for i := range commandInfos {
		table.register(i, nil)
	}
	for i := range eventNames {
		table.declared[i] = eventNames[i] != ""
	}
	return table
}

// difference walks two schemas side by side and collects what differs, type
// names apart.
type difference struct {
	ours, theirs introspected
	seen         map[[2]string]bool
	found        []string
}

func (d *difference) report(path, format string, args ...any) {
	d.found = append(d.found, path+": "+fmt.Sprintf(format, args...))
}

func (d *difference) equal(path, what string, a, b any) {
	if x, y := fmt.Sprint(a), fmt.Sprint(b); x != y {
		d.report(path, "%s %s, not %s", what, x, y)
	}
}

func (d *difference) walk(path, our, their string) {
	if key := [2]string{our, their}; d.seen[key] {
		return
	} else {
		d.seen[key] = true
	}
	a, b := d.ours[our], d.theirs[their]
	switch {
	case a == nil || b == nil:
		d.report(path, "no entry for %q and %q", our, their)
		return
	case a.MetaType != b.MetaType:
		d.report(path, "meta-type %s, not %s", a.MetaType, b.MetaType)
		return
	}
	d.equal(path, "features", a.Features, b.Features)
	switch a.MetaType {
	case "command":
		d.equal(path, "allow-oob", a.AllowOOB, b.AllowOOB)
		d.walk(path, a.ArgType, b.ArgType)
		d.walk(path+" returns", a.RetType, b.RetType)
	case "event":
		d.walk(path, a.ArgType, b.ArgType)
	case "builtin":
		d.equal(path, "json-type", a.JSONType, b.JSONType)
	case "array":
		d.walk(path+"[]", a.Element, b.Element)
	case "enum":
		d.enum(path, a, b)
	case "alternate":
		d.alternate(path, a, b)
	case "object":
		d.object(path, a, b)
	}
}

func (d *difference) enum(path string, a, b *info) {
	d.equal(path, "values", a.Values, b.Values)
	if len(a.Members) != len(b.Members) {
		return
	}
	for i, m := range a.Members {
		d.equal(path, "value", m.Name, b.Members[i].Name)
		d.equal(path+"="+m.Name, "features", m.Features, b.Members[i].Features)
	}
}

func (d *difference) alternate(path string, a, b *info) {
	if len(a.Members) != len(b.Members) {
		d.report(path, "%d alternatives, not %d", len(a.Members), len(b.Members))
		return
	}
	for i, m := range a.Members {
		d.walk(path, m.Type, b.Members[i].Type)
	}
}

func (d *difference) object(path string, a, b *info) {
	var x, y []string
	for _, m := range a.Members {
		x = append(x, m.Name)
	}
	for _, m := range b.Members {
		y = append(y, m.Name)
	}
	d.equal(path, "members", x, y)
	for _, m := range a.Members {
		i := slices.Index(y, m.Name)
		if i < 0 {
			continue
		}
		inner := strings.TrimPrefix(path+"."+m.Name, ".")
		d.equal(inner, "default", string(m.Default), string(b.Members[i].Default))
		d.equal(inner, "features", m.Features, b.Members[i].Features)
		d.walk(inner, m.Type, b.Members[i].Type)
	}
	d.equal(path, "tag", a.Tag, b.Tag)
	d.variants(path, a, b)
}

func (d *difference) variants(path string, a, b *info) {
	var x, y []string
	for _, v := range a.Variants {
		x = append(x, v.Case)
	}
	for _, v := range b.Variants {
		y = append(y, v.Case)
	}
	d.equal(path, "variants", x, y)
	for _, v := range a.Variants {
		if i := slices.Index(y, v.Case); i >= 0 {
			d.walk(path+"("+v.Case+")", v.Type, b.Variants[i].Type)
		}
	}
}

// differences compares all commands and events that both sides have. Those
// which only we have are returned apart.
func differences(ours, theirs introspected) (found, extra []string) {
	d := &difference{ours: ours, theirs: theirs, seen: map[[2]string]bool{}}
	for _, top := range schemaTops {
		switch {
		case ours[top.name] == nil:
		case theirs[top.name] == nil:
			extra = append(extra, top.name)
		default:
			d.walk(top.name, top.name, top.name)
		}
	}
	return d.found, extra
}

// systemOnly are the commands and events which the storage daemon lacks.
var systemOnly = []string{
	"query-status", "SHUTDOWN", "STOP", "RESUME", "device_add", "device_del", "DEVICE_DELETED",
	"stop", "cont", "human-monitor-command", "getfd", "closefd", "add-fd", "remove-fd", "query-fdsets",
}

func TestIntrospectionIsTheReferences(t *testing.T) {
	t.Parallel()
	our := ours(t, Newest)
	for name, extra := range map[string][]string{"system-x86_64-10.0.2": nil, "storage-daemon-10.0.2": systemOnly} {
		found, more := differences(our, reference(t, name))
		for _, f := range found {
			t.Errorf("%s: %s", name, f)
		}
		if !slices.Equal(more, extra) {
			t.Errorf("%s lacks %q, expected %q", name, more, extra)
		}
	}
}

// gone72 are the differences to 7.2 which "since" cannot express: members that
// were dropped since then, and types that were given another shape.
var gone72 = map[string]string{
	"query-status returns: members":                                                      "singlestep was dropped",
	"query-block returns[].inserted.image: members":                                      "backing-image stood before format-specific",
	"query-block returns[].inserted.image.format-specific(vmdk).data.extents[]: members": "the extents had the type of whole images",
	"query-block-jobs returns[].type: meta-type":                                         "the type was a string",
	"query-block-jobs returns[]: tag":                                                    "the entry was no union",
	"query-block-jobs returns[]: variants":                                               "the entry was no union",
	"chardev-add.backend.type: values":                                                   "console was listed on other systems than Windows",
	"chardev-add.backend: variants":                                                      "console was listed on other systems than Windows",
	"object-add(secret): members":                                                        "loaded was dropped",
	"object-add(secret_keyring): members":                                                "loaded was dropped",
	"object-add(tls-creds-anon): members":                                                "loaded was dropped",
	"object-add(tls-creds-psk): members":                                                 "loaded was dropped",
	"object-add(tls-creds-x509): members":                                                "loaded was dropped",
	"object-add(sev-guest): members":                                                     "the members that are now in the base came last",
	"blockdev-create.options(luks).file: default":                                        "the file could not be left out",
	"nbd-server-start: members":                                                          "the members that are now in the base came last",
}

func TestIntrospectionAsOf72(t *testing.T) {
	t.Parallel()
	our := ours(t, V7_2)
	met := map[string]bool{}
	for name, extra := range map[string][]string{"system-x86_64-7.2.22": nil, "storage-daemon-7.2.22": systemOnly} {
		found, more := differences(our, reference(t, name))
		for _, f := range found {
			met[exception(f)] = true
			if exception(f) == "" {
				t.Errorf("%s: %s", name, f)
			}
		}
		if !slices.Equal(more, extra) {
			t.Errorf("%s lacks %q, expected %q", name, more, extra)
		}
	}
	for e := range gone72 {
		if !met[e] {
			t.Errorf("%q is no difference any more", e)
		}
	}
}

// exception returns the key of gone72 that covers a difference.
func exception(difference string) string {
	for e := range gone72 {
		if strings.HasPrefix(difference, e) {
			return e
		}
	}
	return ""
}

// TestOrder compares the order of commands and events with the reference's.
func TestOrder(t *testing.T) {
	t.Parallel()
	var list []*info
	if err := json.Unmarshal(readGzip(t, "testdata/system-x86_64-10.0.2.json.gz"), &list); err != nil {
		t.Fatal(err)
	}
	var theirs, our []string
	for _, top := range schemaTops {
		our = append(our, top.name)
	}
	for _, e := range list {
		if slices.Contains(our, e.Name) {
			theirs = append(theirs, e.Name)
		}
	}
	if !slices.Equal(our, theirs) {
		t.Errorf("got  %q\nwant %q", our, theirs)
	}
}

// TestEntryOrder wants types numbered as they are met: the answer is read
// from the top, and each new type must be the next in the list.
func TestEntryOrder(t *testing.T) {
	t.Parallel()
	var list []*info
	if err := json.Unmarshal(returnList(nil, everything(Newest).Introspect(), Newest), &list); err != nil {
		t.Fatal(err)
	}
	var met []string
	meet := func(names ...string) {
		for _, name := range names {
			if name == "" || slices.Contains(met, name) {
				continue
			}
			met = append(met, name)
			if element, ok := strings.CutPrefix(name, "["); ok {
				if element = strings.TrimSuffix(element, "]"); !slices.Contains(met, element) {
					met = append(met, element)
				}
			}
		}
	}
	for _, e := range list {
		meet(e.ArgType, e.RetType)
		if e.MetaType == "array" {
			meet(e.Element)
		}
		for _, m := range e.Members {
			meet(m.Type)
		}
		for _, v := range e.Variants {
			meet(v.Type)
		}
	}
	var listed []string
	for _, e := range list {
		if e.MetaType != "command" && e.MetaType != "event" {
			listed = append(listed, e.Name)
		}
	}
	if !slices.Equal(listed, met) {
		t.Errorf("listed %q\nmet    %q", listed, met)
	}
}
