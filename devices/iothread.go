package devices

import (
	"math"
	"strconv"

	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
)

// An IOThread is an iothread object as devices need it.
type IOThread struct {
	// Path is the object's: "/objects/io0".
	Path    string
	Context *aio.Context
}

// resolveIOThread finds what a link property names: an id or a path.
func (m *Machine) resolveIOThread(name, property string) (*IOThread, error) {
	if m.cfg.IOThread == nil {
		return nil, notFound(name)
	}
	t, err := m.cfg.IOThread(name)
	if err != nil {
		return nil, err
	}
	if t == nil {
		return nil, wrongType(property, "iothread")
	}
	return t, nil
}

// parseVQMapping reads a list of iothreads with the queues each serves. The
// value is the same list as JSON.
func parseVQMapping(name string, v qjson.Value) (string, error) {
	if v.Kind() != qjson.Array {
		return "", wrongType(name, "array")
	}
	i := 0
	for e := range v.Elems() {
		if err := checkMapping(name+"["+strconv.Itoa(i)+"]", e); err != nil {
			return "", err
		}
		i++
	}
	return string(qjson.AppendValue(nil, v)), nil
}

func checkMapping(path string, v qjson.Value) error {
	if v.Kind() != qjson.Object {
		return wrongType(path, "object")
	}
	thread := v.Get("iothread")
	if !thread.Exists() {
		return qerr.New("Parameter '%s.iothread' is missing", path)
	}
	if thread.Kind() != qjson.String {
		return wrongType(path+".iothread", "string")
	}
	if err := checkQueues(path+".vqs", v.Get("vqs")); err != nil {
		return err
	}
	for key := range v.DictOrder() {
		if k := string(key); k != "iothread" && k != "vqs" {
			return qerr.New("Parameter '%s.%s' is unexpected", path, k)
		}
	}
	return nil
}

func checkQueues(path string, v qjson.Value) error {
	if !v.Exists() {
		return nil
	}
	if v.Kind() != qjson.Array {
		return wrongType(path, "array")
	}
	i := 0
	for q := range v.Elems() {
		if _, err := parseUnsigned(path+"["+strconv.Itoa(i)+"]", q, math.MaxUint64, ""); err != nil {
			return err
		}
		if q.Uint() > math.MaxUint16 {
			// Range checks know members by name, and elements have none.
			return qerr.New("Parameter 'null' expects uint16_t")
		}
		i++
	}
	return nil
}

// checkVQMapping holds a mapping against what there is: threads that exist,
// each once, and queues below num. Either all queues are assigned, each once,
// or none is.
func (m *Machine) checkVQMapping(mapping string, num int) error {
	list, err := qjson.Parse([]byte(mapping))
	if err != nil {
		return err
	}
	c := vqCheck{threads: make(map[string]bool), queues: make(map[uint64]bool), num: uint64(num)}
	for e := range list.Elems() {
		if err := c.item(m, e); err != nil {
			return err
		}
	}
	return c.missing()
}

type vqCheck struct {
	threads map[string]bool
	queues  map[uint64]bool
	num     uint64
	// withQueues is what the first item says.
	withQueues bool
}

func (c *vqCheck) item(m *Machine, e qjson.Value) error {
	id, vqs := e.Get("iothread").Str(), e.Get("vqs")
	if t, err := m.resolveIOThread(id, ""); err != nil || t == nil {
		return qerr.New("IOThread \"%s\" object does not exist", id)
	}
	if c.threads[id] {
		return qerr.New("duplicate IOThread name \"%s\" in iothread-vq-mapping", id)
	}
	if len(c.threads) == 0 {
		c.withQueues = vqs.Len() > 0
	}
	c.threads[id] = true
	if c.withQueues != (vqs.Len() > 0) {
		return qerr.New("either all items in iothread-vq-mapping must have vqs or none of them must have it")
	}
	for q := range vqs.Elems() {
		if q.Uint() >= c.num {
			return qerr.New("vq index %d for IOThread \"%s\" must be less than num_queues %d in iothread-vq-mapping", q.Uint(), id, c.num)
		}
		if c.queues[q.Uint()] {
			return qerr.New("cannot assign vq %d to IOThread \"%s\" because it is already assigned", q.Uint(), id)
		}
		c.queues[q.Uint()] = true
	}
	return nil
}

func (c *vqCheck) missing() error {
	if !c.withQueues {
		return nil
	}
	for q := range c.num {
		if !c.queues[q] {
			return qerr.New("missing vq %d IOThread assignment in iothread-vq-mapping", q)
		}
	}
	return nil
}
