package qom

import (
	"sync"

	"github.com/qmpblock/qmpblock/qjson"
)

// guarded is what an object has that its properties show and change. The values
// of most objects embed one.
type guarded[P any] struct {
	mu    sync.Mutex
	props P
}

// snapshot is what the properties are now.
func (g *guarded[P]) snapshot() P {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.props
}

func (g *guarded[P]) guard() *guarded[P] { return g }

// guardedProperty makes a property that is one of the fields of a P: visit
// reads a new value, which show prints. What visit returns beside an error is
// not stored.
func guardedProperty[P, T any](name, typ string, field func(*P) *T, show func([]byte, T) []byte, visit func(qjson.Value, string) (T, error)) *Property {
	guardOf := func(o *Object) *guarded[P] { return o.Value.(interface{ guard() *guarded[P] }).guard() }
	return &Property{
		Name: name,
		Type: typ,
		Get: func(o *Object, dst []byte) ([]byte, error) {
			g := guardOf(o)
			g.mu.Lock()
			defer g.mu.Unlock()
			return show(dst, *field(&g.props)), nil
		},
		Set: func(o *Object, v qjson.Value) error {
			value, err := visit(v, name)
			if err != nil {
				return err
			}
			g := guardOf(o)
			g.mu.Lock()
			defer g.mu.Unlock()
			*field(&g.props) = value
			return nil
		},
	}
}

// stringProperty makes a property for a text.
func stringProperty[P any](name string, field func(*P) *string) *Property {
	return guardedProperty(name, "string", field, qjson.AppendString, visitString)
}

// optionalProperty makes a property for a text that need not be given: nil,
// which is shown as "".
func optionalProperty[P any](name string, field func(*P) **string) *Property {
	show := func(dst []byte, s *string) []byte {
		if s == nil {
			return qjson.AppendString(dst, "")
		}
		return qjson.AppendString(dst, *s)
	}
	visit := func(v qjson.Value, path string) (*string, error) {
		s, err := visitString(v, path)
		return &s, err
	}
	return guardedProperty(name, "string", field, show, visit)
}

// enumProperty makes a property for one of some values, of the type typ.
func enumProperty[P any](name, typ string, values []string, field func(*P) *string) *Property {
	visit := func(v qjson.Value, path string) (string, error) { return visitEnum(v, path, name, values) }
	return guardedProperty(name, typ, field, qjson.AppendString, visit)
}

// boolProperty makes a property for a switch.
func boolProperty[P any](name string, field func(*P) *bool) *Property {
	return guardedProperty(name, "bool", field, qjson.AppendBool, visitBool)
}
