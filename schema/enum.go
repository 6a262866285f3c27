package schema

// enumTable holds the names of an enumeration's values, which count from 0.
type enumTable struct {
	names []string
	// since has the versions of the values that are newer than [V7_2], 0 for
	// the others; it may be shorter than names.
	since []Version
}

func (t *enumTable) name(i uint8) string {
	if int(i) >= len(t.names) {
		return ""
	}
	return t.names[i]
}

// find returns the value with a name, if the version knows it.
func (t *enumTable) find(name []byte, v Version) (uint8, bool) {
	for i, s := range t.names {
		if s != string(name) {
			continue
		}
		if i < len(t.since) && t.since[i] > v {
			return 0, false
		}
		return uint8(i), true
	}
	return 0, false
}

// enumeration is what all generated enumerations have.
type enumeration interface {
	~uint8
	table() *enumTable
}

// ParseEnum returns the value of an enumeration that has the given name.
func ParseEnum[T enumeration](name string) (T, bool) {
	var zero T
	i, ok := zero.table().find([]byte(name), Newest)
	return T(i), ok
}

// EnumOf is ParseEnum for a name that is known to exist, such as a room below
// gives its own values. It panics if there is no such value.
func EnumOf[T enumeration](name string) T {
	v, ok := ParseEnum[T](name)
	if !ok {
		panic("schema: no value is called " + name)
	}
	return v
}

// EnumNames returns the names of all values, in the order of the schema. The
// slice is not to be changed.
func EnumNames[T enumeration]() []string {
	var zero T
	return zero.table().names
}
