package qom

import (
	"fmt"
	"slices"
	"strings"
)

// CreatableHelp lists the types a user can create, one a line, as --object
// help does.
func (t *Tree) CreatableHelp() string {
	var names []string
	for _, typ := range t.Types(typeUserCreatable, false) {
		names = append(names, typ.Name)
	}
	return lines("List of user creatable objects:", names)
}

// PropertyHelp lists the properties of a type, one a line, as --object TYPE,help
// does; ok is false for an unknown type.
func (t *Tree) PropertyHelp(name string) (text string, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	typ, ok := t.types.Get(name)
	if !ok {
		return "", false
	}
	var options []string
	for _, ancestor := range t.line(typ) {
		for _, p := range ancestor.Properties {
			if !p.ReadOnly {
				options = append(options, p.help())
			}
		}
	}
	if len(options) == 0 {
		return fmt.Sprintf("There are no options for %s.\n", name), true
	}
	return lines(name+" options:", options), true
}

func (p *Property) help() string {
	line := fmt.Sprintf("%s=<%s>", p.Name, p.Type)
	if p.Description != "" {
		line = fmt.Sprintf("%-22s - %s", line, p.Description)
	}
	return line
}

func lines(title string, items []string) string {
	slices.Sort(items)
	return title + "\n  " + strings.Join(items, "\n  ") + "\n"
}
