package schema

import (
	"github.com/qmpblock/qmpblock/keyval"
	"github.com/qmpblock/qmpblock/qjson"
)

// notScalar reports an object, list or other type where a scalar belongs.
func (d *decoder) notScalar(expected string, v qjson.Value) bool {
	if d.mode == Keyval && (v.Kind() == qjson.Object || v.Kind() == qjson.Array) {
		return d.fail("Parameters '%s.*' are unexpected", d.fullName())
	}
	return d.wrongType(expected)
}

func (d *decoder) expects(what string) bool {
	return d.fail("Parameter '%s' expects %s", d.fullName(), what)
}

func readString(d *decoder, v qjson.Value, p *string) bool {
	if v.Kind() != qjson.String {
		return d.notScalar("string", v)
	}
	*p = v.Str()
	return true
}

func readBool(d *decoder, v qjson.Value, p *bool) bool {
	if d.mode == QMP {
		*p = v.Bool()
		return v.Kind() == qjson.Bool || d.wrongType("boolean")
	}
	if v.Kind() != qjson.String {
		return d.notScalar("boolean", v)
	}
	var ok bool
	*p, ok = keyval.ParseBool(v.Str())
	return ok || d.expects("'on' or 'off'")
}

func readInt64(d *decoder, v qjson.Value, p *int64) bool {
	if d.mode == QMP {
		*p = v.Int()
		return v.Kind() == qjson.Int || d.wrongType("integer")
	}
	if v.Kind() != qjson.String {
		return d.notScalar("integer", v)
	}
	var err error
	*p, err = keyval.ParseInt(v.Str())
	return err == nil || d.expects("integer")
}

// readUint64 takes negative numbers as 2^64-n, like the reference.
func readUint64(d *decoder, v qjson.Value, p *uint64) bool {
	if d.mode == QMP {
		*p = v.Uint()
		return v.Kind() == qjson.Int || v.Kind() == qjson.Uint || d.expects("uint64")
	}
	if v.Kind() != qjson.String {
		return d.notScalar("integer", v)
	}
	var err error
	*p, err = keyval.ParseUint(v.Str())
	return err == nil || d.expects("integer")
}

// readSize reads a number of bytes, which may have a suffix on a command line.
func readSize(d *decoder, v qjson.Value, p *uint64) bool {
	if d.mode == QMP {
		return readUint64(d, v, p)
	}
	if v.Kind() != qjson.String {
		return d.notScalar("size", v)
	}
	var err error
	*p, err = keyval.ParseSize(v.Str())
	return err == nil || d.expects("size")
}

// readNarrow reads an unsigned integer of less than 64 bits. One that is too
// large is named by its own name alone.
func readNarrow[T uint16 | uint32](d *decoder, v qjson.Value, p *T, name string) bool {
	var wide uint64
	if !readUint64(d, v, &wide) {
		return false
	}
	*p = T(wide)
	return uint64(*p) == wide || d.fail("Parameter '%s' expects %s", d.lastName(), name)
}

func readUint16(d *decoder, v qjson.Value, p *uint16) bool { return readNarrow(d, v, p, "uint16_t") }

func readUint32(d *decoder, v qjson.Value, p *uint32) bool { return readNarrow(d, v, p, "uint32_t") }

func readAny(d *decoder, v qjson.Value, p *Any) bool {
	*p = AnyOf(v)
	return true
}

func readUint16s(d *decoder, v qjson.Value, p *[]uint16) bool {
	return readList(d, v, p, readUint16)
}

func readStrings(d *decoder, v qjson.Value, p *[]string) bool {
	return readList(d, v, p, readString)
}

func readInt32(d *decoder, v qjson.Value, p *int32) bool {
	var wide int64
	if !readInt64(d, v, &wide) {
		return false
	}
	*p = int32(wide)
	return int64(*p) == wide || d.fail("Parameter '%s' expects int32_t", d.lastName())
}
