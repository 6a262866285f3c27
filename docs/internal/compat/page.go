package main

import (
	"fmt"
	"slices"
	"strings"
)

// headings introduce the sections.
var headings = map[kind]string{
	command: "Commands",
	event:   "Events",
	driver:  "Block drivers",
	exports: "Export types",
	object:  "Object types",
	chardev: "Character devices",
	option:  "Command-line options",
}

const introduction = `# Compatibility

Everything that QEMU 10.0 offers to a client, and whether it is here.

<!-- Written by go generate ./docs/internal/compat; do not edit. -->

The reference is the storage daemon and the system emulator (x86_64) of QEMU
10.0.2. What is not here is in no list that a client can query, and answers as a
name that does not exist.

**yes**: it is here. **no**: it is not. Empty: the reference's program does not
have it. Names in *italics* are in none of the reference's own lists.

`

// makePage writes the page.
func makePage() ([]byte, error) {
	theirs, err := reference()
	if err != nil {
		return nil, err
	}
	here, err := ours()
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	b.WriteString(introduction)
	summary(&b, theirs, here)
	for _, k := range kinds {
		section(&b, k, theirs, here)
	}
	return []byte(b.String()), nil
}

func summary(b *strings.Builder, theirs, here map[program]offer) {
	b.WriteString("| | storage daemon | system emulator |\n|---|---|---|\n")
	for _, k := range kinds {
		fmt.Fprintf(b, "| [%s](#%s) |", headings[k], anchor(headings[k]))
		for _, p := range programs {
			found := 0
			for name := range theirs[p][k] {
				if here[p].has(k, name) {
					found++
				}
			}
			fmt.Fprintf(b, " %d of %d |", found, len(theirs[p][k]))
		}
		b.WriteString("\n")
	}
}

func anchor(heading string) string { return strings.ReplaceAll(strings.ToLower(heading), " ", "-") }

func section(b *strings.Builder, k kind, theirs, here map[program]offer) {
	fmt.Fprintf(b, "\n## %s\n\n| name | storage daemon | system emulator |\n|---|---|---|\n", headings[k])
	all := append(names(theirs, k), names(here, k)...)
	slices.Sort(all)
	for _, name := range slices.Compact(all) {
		fmt.Fprintf(b, "| %s |", style(k, name, theirs))
		for _, p := range programs {
			b.WriteString(cell(theirs[p].has(k, name), here[p], k, name))
		}
		b.WriteString("\n")
	}
}

// style prints a name; in italics if the reference does not have it.
func style(k kind, name string, theirs map[program]offer) string {
	code := "`" + name + "`"
	for _, p := range programs {
		if theirs[p].has(k, name) {
			return code
		}
	}
	return "*" + code + "*"
}

func cell(there bool, here offer, k kind, name string) string {
	switch {
	case here.has(k, name) && here[k][name] != "":
		return " yes: " + here[k][name] + " |"
	case here.has(k, name):
		return " yes |"
	case there:
		return " no |"
	}
	return " |"
}
