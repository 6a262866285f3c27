package schema

import "github.com/qmpblock/qmpblock/qjson"

// encodable is implemented by every struct and alternate.
type encodable interface {
	appendJSON(dst []byte, version Version) []byte
}

// memberList gives access to the members of a union's two halves, sorted as
// the reference's dict prints them. The order of a struct is known when its
// code is generated; that of a union is a merge of two such orders.
type memberList interface {
	// buckets returns the dict bucket of each member, ascending.
	buckets() []uint16
	// appendMember appends member i, if it is there.
	appendMember(dst []byte, i int, version Version) []byte
}

// appendKey appends a member's name, given with quotes and colon, and the
// comma before it. No value ends in an opening brace, so one at the end of
// dst says that this is the first member.
func appendKey(dst []byte, key string) []byte {
	if dst[len(dst)-1] != '{' {
		dst = append(dst, ", "...)
	}
	return append(dst, key...)
}

func appendMembers(dst []byte, ms memberList, version Version) []byte {
	dst = append(dst, '{')
	for i := range ms.buckets() {
		dst = ms.appendMember(dst, i, version)
	}
	return append(dst, '}')
}

// appendUnion merges the members of a union and of its branch. Those of the
// branch were inserted later, so they come first inside a bucket.
func appendUnion(dst []byte, base, branch memberList, version Version) []byte {
	dst = append(dst, '{')
	a, b := base.buckets(), branch.buckets()
	for i, j := 0, 0; i < len(a) || j < len(b); {
		if j < len(b) && (i == len(a) || b[j] <= a[i]) {
			dst = branch.appendMember(dst, j, version)
			j++
			continue
		}
		dst = base.appendMember(dst, i, version)
		i++
	}
	return append(dst, '}')
}

func appendString(dst []byte, s string) []byte { return qjson.AppendString(dst, s) }

func appendEnum[T enumeration](dst []byte, v T) []byte {
	dst = append(dst, '"')
	dst = append(dst, v.table().name(uint8(v))...)
	return append(dst, '"')
}

func appendAny(dst []byte, v Any) []byte {
	if v == nil {
		return qjson.AppendNull(dst)
	}
	return append(dst, v...)
}

// appendEach appends a list.
func appendEach[T any](dst []byte, list []T, each func([]byte, T) []byte) []byte {
	dst = append(dst, '[')
	for i, v := range list {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = each(dst, v)
	}
	return append(dst, ']')
}

func appendList[T encodable](dst []byte, list []T, version Version) []byte {
	dst = append(dst, '[')
	for i, v := range list {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = v.appendJSON(dst, version)
	}
	return append(dst, ']')
}

func appendStrings(dst []byte, list []string) []byte {
	return appendEach(dst, list, appendString)
}

func appendEnums[T enumeration](dst []byte, list []T) []byte {
	return appendEach(dst, list, appendEnum[T])
}

// appendInts appends a list of integers of any width.
func appendInts[T ~int64 | ~int32 | ~int16 | ~int8 | ~uint64 | ~uint32 | ~uint16 | ~uint8](dst []byte, list []T) []byte {
	return appendEach(dst, list, func(dst []byte, v T) []byte {
		if v < 0 {
			return qjson.AppendInt(dst, int64(v))
		}
		return qjson.AppendUint(dst, uint64(v))
	})
}
