package main

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/qmpblock/qmpblock/control"
	"github.com/qmpblock/qmpblock/drivers"
	"github.com/qmpblock/qmpblock/export"
	"github.com/qmpblock/qmpblock/qjson"
)

// ours asks our own programs.
func ours() (map[program]offer, error) {
	all := map[program]offer{}
	for p, who := range map[program]control.Personality{
		storageDaemon: control.StorageDaemon,
		system:        control.System,
	} {
		o, err := askInstance(who)
		if err != nil {
			return nil, err
		}
		if err := o.addOptions(p); err != nil {
			return nil, err
		}
		all[p] = o
	}
	return all, nil
}

func askInstance(who control.Personality) (offer, error) {
	i := control.New(control.Config{Personality: who})
	defer i.Close()
	i.Start()
	execute := func(command string, args qjson.Value) (qjson.Value, error) {
		out, err := i.Execute(context.Background(), command, args)
		if err != nil {
			return qjson.Value{}, err
		}
		return qjson.Parse(out)
	}
	o, err := ask(func(command string) (qjson.Value, error) { return execute(command, qjson.Value{}) })
	if err != nil {
		return nil, err
	}
	creatable, err := qjson.Parse([]byte(`{"implements": "user-creatable", "abstract": false}`))
	if err != nil {
		return nil, err
	}
	types, err := execute("qom-list-types", creatable)
	if err != nil {
		return nil, err
	}
	for e := range types.Elems() {
		if name := e.Get("name").Str(); canBeMade(execute, name) {
			o.add(object, name, "")
		}
	}
	// The schema describes drivers and types of exports before they are
	// written; these are.
	o[driver], o[exports] = nil, nil
	for _, d := range drivers.All() {
		o.add(driver, d.Name, "")
	}
	for _, t := range export.Types() {
		o.add(exports, string(t), "")
	}
	return o, nil
}

// canBeMade tries to make an object: some types are listed, since clients look
// for them, and refused. Properties that are said to be missing are given; any
// other complaint comes from a type that is there.
func canBeMade(execute func(string, qjson.Value) (qjson.Value, error), name string) bool {
	args := fmt.Sprintf(`{"qom-type": %q, "id": "o-%s"`, name, name)
	for {
		v, err := qjson.Parse([]byte(args + "}"))
		if err != nil {
			return false
		}
		_, err = execute("object-add", v)
		if err == nil {
			return true
		}
		if strings.Contains(err.Error(), "expected: integer") && strings.Contains(args, `"x"`) {
			args = strings.Replace(args, `"x"`, "1", 1)
			continue
		}
		var property string
		if _, wrong := fmt.Sscanf(err.Error(), "Parameter %s is missing", &property); wrong != nil {
			return err.Error() != fmt.Sprintf("object type '%s' is not supported", name)
		}
		args += fmt.Sprintf(`, "%s": "x"`, strings.Trim(property, "'"))
	}
}

// optionTables are the variables of cmd/qmpblock that declare options. A
// command cannot be imported, so its source is read.
var optionTables = map[program]string{storageDaemon: "daemonOptions", system: "systemOptions"}

// ignored is the remark for an option that is taken and changes nothing.
const ignored = "taken, changes nothing"

// addOptions adds the options of a program.
func (o offer) addOptions(p program) error {
	table, err := findTable(optionTables[p])
	if err != nil {
		return err
	}
	for _, e := range table.Elts {
		name, remark, err := optionOf(e)
		if err != nil {
			return err
		}
		o.add(option, name, remark)
	}
	return nil
}

// findTable finds the value of a variable of cmd/qmpblock.
func findTable(variable string) (*ast.CompositeLit, error) {
	files, err := filepath.Glob(filepath.Join(programPath, "*.go"))
	if err != nil {
		return nil, err
	}
	var table *ast.CompositeLit
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok && v.Names[0].Name == variable && len(v.Values) == 1 {
				table, _ = v.Values[0].(*ast.CompositeLit)
			}
			return true
		})
	}
	if table == nil {
		return nil, fmt.Errorf("%s has no variable %s", programPath, variable)
	}
	return table, nil
}

// optionOf reads one entry: {name: "blockdev", …} of the storage daemon, or
// "blockdev": {…, as: "blockdev"} of the system emulator.
func optionOf(e ast.Expr) (name, remark string, err error) {
	if pair, ok := e.(*ast.KeyValueExpr); ok {
		name, err = text(pair.Key)
		if _, does := field(pair.Value, "as"); !does {
			remark = ignored
		}
		return name, remark, err
	}
	value, ok := field(e, "name")
	if !ok {
		return "", "", fmt.Errorf("an option of %s has no name", programPath)
	}
	name, err = text(value)
	return name, "", err
}

func field(e ast.Expr, name string) (ast.Expr, bool) {
	literal, ok := e.(*ast.CompositeLit)
	if !ok {
		return nil, false
	}
	for _, element := range literal.Elts {
		pair, ok := element.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		if key, ok := pair.Key.(*ast.Ident); ok && key.Name == name {
			return pair.Value, true
		}
	}
	return nil, false
}

func text(e ast.Expr) (string, error) {
	literal, ok := e.(*ast.BasicLit)
	if !ok {
		return "", fmt.Errorf("an option's name in %s is no literal", programPath)
	}
	return strconv.Unquote(literal.Value)
}
