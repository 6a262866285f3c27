package control

import (
	"context"
	"strings"

	"github.com/qmpblock/qmpblock/block"
	"github.com/qmpblock/qmpblock/block/aio"
	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/qom"
	"github.com/qmpblock/qmpblock/schema"
)

func (i *Instance) registerQOM(t *schema.Table) {
	t.ObjectAdd(actionWith(i, i.objectAdd))
	t.ObjectDel(actionWith(i, i.objectDel))
	t.QomList(queryWith(i, i.qomList))
	t.QomGet(queryWith(i, i.qomGet))
	t.QomSet(actionWith(i, i.qomSet))
	t.QomListTypes(i.qomListTypes)
	t.QomListProperties(i.qomListProperties)
}

func (i *Instance) objectAdd(_ *aio.Lock, a *schema.ObjectOptions) error {
	props, err := qjson.Parse(a.AppendJSON(nil))
	if err != nil {
		return err
	}
	return i.objects.Add(a.QomType.String(), a.Id, props)
}

func (i *Instance) objectDel(_ *aio.Lock, a *schema.ObjectDelArguments) error {
	return i.objects.Del(a.Id)
}

func (i *Instance) qomList(_ *aio.Lock, a *schema.QomListArguments) ([]*schema.ObjectPropertyInfo, error) {
	list, err := i.objectList(a.Path)
	return propertyInfos(list, func(*schema.ObjectPropertyInfo, qom.PropertyInfo) {}), err
}

func (i *Instance) qomListProperties(_ context.Context, a *schema.QomListPropertiesArguments) ([]*schema.ObjectPropertyInfo, error) {
	list, err := i.objects.TypeProperties(a.Typename)
	return propertyInfos(list, describeProperty), err
}

// propertyInfos turns the tree's view of properties into the schema's; more
// adds what only listings of types tell.
func propertyInfos(list []qom.PropertyInfo, more func(*schema.ObjectPropertyInfo, qom.PropertyInfo)) []*schema.ObjectPropertyInfo {
	infos := make([]*schema.ObjectPropertyInfo, len(list))
	for k, p := range list {
		infos[k] = &schema.ObjectPropertyInfo{Name: p.Name, Type: p.Type}
		more(infos[k], p)
	}
	return infos
}

func describeProperty(info *schema.ObjectPropertyInfo, p qom.PropertyInfo) {
	if p.Description != "" {
		info.Description = &p.Description
	}
	if p.Default != "" {
		info.DefaultValue = schema.Any(p.Default)
	}
}

func (i *Instance) qomGet(_ *aio.Lock, a *schema.QomGetArguments) (schema.Any, error) {
	value, err := i.objectGet(a.Path, a.Property)
	return schema.Any(value), err
}

func (i *Instance) qomSet(l *aio.Lock, a *schema.QomSetArguments) error {
	v, err := a.Value.Value()
	if err != nil {
		return err
	}
	return i.objectSet(l, a.Path, a.Property, v)
}

func (i *Instance) qomListTypes(_ context.Context, a *schema.QomListTypesArguments) ([]*schema.ObjectTypeInfo, error) {
	if a.Implements != nil && *a.Implements == "" {
		// No type has that name, though the tree takes it for "any".
		return nil, nil
	}
	list := i.objects.Types(deref(a.Implements), deref(a.Abstract))
	infos := make([]*schema.ObjectTypeInfo, len(list))
	for k, t := range list {
		infos[k] = &schema.ObjectTypeInfo{Name: t.Name}
		if t.Parent != "" {
			infos[k].Parent = &t.Parent
		}
		if t.Abstract {
			infos[k].Abstract = &t.Abstract
		}
	}
	return infos, nil
}

// iothread is the event loop behind an iothread object: a context of the
// graph. Of its tuning values, thread-pool-max bounds how many requests block
// in the system at once. The others are kept by the object; Go's scheduler has
// no use for them.
type iothread struct {
	graph *block.Graph
	mainLoop
}

// mainLoop is the event loop behind the main-loop object: the main context,
// which is there without it as well.
type mainLoop struct{ ctx *aio.Context }

func (i *Instance) newIOThread(id string, p qom.EventLoopParams) (qom.EventLoop, error) {
	t := &iothread{i.graph, mainLoop{i.graph.NewContext(id)}}
	t.SetParams(p)
	return t, nil
}

func (i *Instance) newMainLoop(p qom.EventLoopParams) (qom.EventLoop, error) {
	m := &mainLoop{i.graph.Main()}
	m.SetParams(p)
	return m, nil
}

// SetParams takes what applies to contexts.
func (m *mainLoop) SetParams(p qom.EventLoopParams) { m.ctx.SetMaxBlocking(int(p.ThreadPoolMax)) }

// Close has nothing to do: the main context ends with the graph.
func (m *mainLoop) Close() {}

// Close lets go of the context; nodes that live there keep it.
func (t *iothread) Close() { t.graph.RetireContext(t.ctx) }

// iothreadContext finds the context of an iothread object by its id or path,
// nil if there is none.
func (i *Instance) iothreadContext(id string) *aio.Context {
	switch {
	case id == "":
		id = i.onlyIOThread()
	case strings.Contains(id, "/"):
		o, err := i.objects.Resolve(id)
		if err != nil || o == nil || o.Type() != "iothread" {
			return nil
		}
		id = o.Name()
	}
	t, _ := i.objects.IOThread(id).(*iothread)
	if t == nil {
		return nil
	}
	return t.ctx
}

// onlyIOThread is the id of the one iothread there is. The reference looks an
// id up as the end of a path, and an empty one fits everything.
func (i *Instance) onlyIOThread() string {
	only := ""
	for _, o := range i.objects.Container("objects").Children() {
		if o.Type() != "iothread" {
			continue
		}
		if only != "" {
			return ""
		}
		only = o.Name()
	}
	return only
}

// AddObject makes an object as --object says.
func (i *Instance) AddObject(v qjson.Value, mode schema.Mode) error {
	a, err := schema.DecodeObjectOptions(v, mode)
	if err != nil {
		return err
	}
	return actionWith(i, i.objectAdd)(context.Background(), a)
}

// AddBlockdev adds a node as --blockdev says.
func (i *Instance) AddBlockdev(v qjson.Value, mode schema.Mode) error {
	a, err := schema.DecodeBlockdevOptions(v, mode)
	if err != nil {
		return err
	}
	return actionWith(i, i.blockdevAdd)(context.Background(), a)
}
