package devices_test

import (
	"fmt"
	"strings"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
)

// result is a command's outcome: "ok", a value, or an error's text with its
// class if that is special.
func result(value string, err error) string {
	if err == nil {
		if value == "" {
			return "ok"
		}
		return value
	}
	e := qerr.From(err)
	if e.Class == qerr.GenericError {
		return e.Desc
	}
	return e.Desc + " [" + string(e.Class) + "]"
}

// driveLine is a row of query-block, as far as it depends on the device.
func driveLine(qdev string, removable, locked bool, tray, status, node string, readOnly, writeback bool) string {
	s := fmt.Sprintf("%s removable=%t locked=%t tray=%s io-status=%s", qdev, removable, locked, tray, status)
	if node == "" {
		return s + " empty"
	}
	return fmt.Sprintf("%s node=%s ro=%t writeback=%t", s, node, readOnly, writeback)
}

// edgeLine is an edge between a device and a node.
func edgeLine(device, node, perm, shared string) string {
	return fmt.Sprintf("%s -> %s takes %s shares %s", device, node, perm, shared)
}

// listLine is a row of qom-list. What belongs to the guest's address space is
// left out.
func listLine(name, typ string) (string, bool) {
	if strings.Contains(typ, "memory-region") {
		return "", false
	}
	return name + " " + typ, true
}

// parse reads the arguments of a script.
func parse(args string) qjson.Value {
	if args == "" {
		args = "{}"
	}
	v, err := qjson.Parse([]byte(args))
	if err != nil {
		panic("script: " + args + ": " + err.Error())
	}
	return v
}
