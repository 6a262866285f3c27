// Command gen turns the QAPI definitions of package schema into Go: types,
// decoders, encoders, command registration and introspection.
//
// It is run by "go generate" in the package's folder:
//
//	gen [-D SYMBOL]… ROOT.json
//
// The files it writes are committed; a test fails when they are stale.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// symbolList collects the -D options: the conditions that hold.
type symbolList map[string]bool

func (l symbolList) String() string { return "" }

func (l symbolList) Set(s string) error {
	for _, name := range strings.Split(s, ",") {
		l[name] = true
	}
	return nil
}

func main() {
	symbols := symbolList{}
	flag.Var(symbols, "D", "a condition that holds")
	flag.Parse()
	if err := run(flag.Args(), symbols); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(args []string, symbols symbolList) error {
	if len(args) != 1 {
		return fmt.Errorf("one schema file, please")
	}
	files, err := generate(args[0], symbols)
	if err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(filepath.Dir(args[0]), name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// generate returns the generated files by name.
func generate(root string, symbols symbolList) (map[string][]byte, error) {
	exprs, err := load(root)
	if err != nil {
		return nil, err
	}
	s, err := resolve(exprs, symbols)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for name, emit := range map[string]func(*writer, *schema){
		"enums_gen.go":      emitEnums,
		"types_gen.go":      emitTypes,
		"decode_gen.go":     emitDecoders,
		"encode_gen.go":     emitEncoders,
		"commands_gen.go":   emitCommands,
		"events_gen.go":     emitEvents,
		"introspect_gen.go": emitIntrospection,
	} {
		w := newWriter()
		emit(w, s)
		if files[name], err = w.source(); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return files, nil
}
