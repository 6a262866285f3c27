package schema

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/qjson"
)

// filler sets everything in a value that can be set.
type filler struct{ *rand.Rand }

func (r filler) fill(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Struct:
		r.fillStruct(v, depth)
	case reflect.Pointer:
		if depth < 5 {
			v.Set(reflect.New(v.Type().Elem()))
			r.fill(v.Elem(), depth+1)
		}
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[Any]() {
			v.Set(reflect.ValueOf(Any(`{"x": 1}`)))
			return
		}
		list := reflect.MakeSlice(v.Type(), 2, 2)
		for i := range 2 {
			e := list.Index(i)
			if e.Kind() == reflect.Pointer {
				e.Set(reflect.New(e.Type().Elem()))
				e = e.Elem()
			}
			r.fill(e, depth+1)
		}
		v.Set(list)
	case reflect.String:
		v.SetString("s")
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Float64:
		v.SetFloat(1.5)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(r.IntN(100) - 50))
	case reflect.Uint8:
		r.fillUint8(v)
	default:
		v.SetUint(uint64(r.IntN(100)))
	}
}

// fillUint8 takes a value of the enumeration, if it is one.
func (r filler) fillUint8(v reflect.Value) {
	if e, ok := v.Interface().(interface{ table() *enumTable }); ok {
		v.SetUint(uint64(r.IntN(len(e.table().names))))
		return
	}
	v.SetUint(uint64(r.IntN(100)))
}

func (r filler) fillStruct(v reflect.Value, depth int) {
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() != reflect.Interface {
			r.fill(f, depth+1)
		}
	}
}

// answers are the types of which a monitor prints values.
var answers = []encodable{
	&BlockInfo{}, &BlockDeviceInfo{}, &BlockStats{}, &BlockJobInfo{}, &JobInfo{}, &BlockExportInfo{}, &XDbgBlockGraph{},
	&ImageInfo{}, &SchemaInfo{}, &ObjectPropertyInfo{}, &ObjectTypeInfo{}, &ChardevInfo{}, &ChardevReturn{}, &VersionInfo{},
	&StatusInfo{}, &FdsetInfo{}, &AddfdInfo{}, &CommandInfo{}, &BlockdevOptionsQcow2{}, &BlockdevOptionsFile{}, &ThrottleGroupProperties{},
	&QCryptoBlockInfoLUKS{}, &MemoryBackendFileProperties{}, &ChardevSocket{},
}

// TestDictOrder compares the order computed when the code was generated with
// the one qjson finds when it prints an object.
func TestDictOrder(t *testing.T) {
	t.Parallel()
	checkDictOrder(t, returnList(nil, everything(Newest).Introspect(), Newest))
	for seed := range uint64(20) {
		r := filler{rand.New(rand.NewPCG(seed, 3))}
		for _, a := range answers {
			v := reflect.New(reflect.TypeOf(a).Elem())
			r.fill(v.Elem(), 0)
			checkDictOrder(t, v.Interface().(encodable).appendJSON(nil, Newest))
		}
	}
}

// checkDictOrder has qjson print the text twice: once turns the members that
// share a bucket round, twice gives them back.
func checkDictOrder(t *testing.T, text []byte) {
	t.Helper()
	once := qjson.AppendValue(nil, parse(t, string(text)))
	twice := string(qjson.AppendValue(nil, parse(t, string(once))))
	if string(text) != twice {
		t.Fatalf("got  %s\nwant %s", text, twice)
	}
}

// TestSharedBuckets has the members that meet in a bucket: the one inserted
// last comes first, and the reference inserts in the order of the schema.
func TestSharedBuckets(t *testing.T) {
	t.Parallel()
	got := string((&VersionTriple{1, 2, 3}).AppendJSON(nil))
	if want := `{"micro": 3, "minor": 2, "major": 1}`; got != want {
		t.Errorf("%s, not %s", got, want)
	}
	got = string((&BlockDeviceStats{}).AppendJSON(nil))
	for _, pair := range [][2]string{
		{"failed_wr_operations", "failed_rd_operations"},
		{"invalid_wr_operations", "invalid_rd_operations"},
		{"timed_stats", "failed_unmap_operations"},
	} {
		if strings.Index(got, pair[0]) > strings.Index(got, pair[1]) {
			t.Errorf("%s comes behind %s", pair[0], pair[1])
		}
	}
}

// TestRoundTrip decodes recorded arguments, prints them, and wants to find
// what was there.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	var last any
	table := checker(Newest, func(args any) { last = args })
	for _, r := range recordedRequests(t) {
		args := parse(t, r.request).Get("arguments")
		last = nil
		if r.complaint != "" || complaint(t, table, []byte(r.request)) != "" || last == nil {
			continue
		}
		got := string(last.(encodable).appendJSON(nil, Newest))
		want := "{}"
		if args.Exists() {
			want = string(qjson.AppendValue(nil, args))
		}
		if got != want {
			t.Errorf("%s\n got: %s\nwant: %s", r.request, got, want)
		}
	}
}

// TestUnionOrder merges the members of a union and its branch.
func TestUnionOrder(t *testing.T) {
	t.Parallel()
	name := "n0"
	o := &BlockdevOptions{
		Driver:   BlockdevDriverRaw,
		NodeName: &name,
		Variant:  &BlockdevOptionsRaw{File: BlockdevRef{Reference: &name}, Offset: new(int64), Size: new(int64)},
	}
	checkDictOrder(t, o.AppendJSON(nil))
	o.Variant = nil
	if got := string(o.AppendJSON(nil)); got != `{"node-name": "n0", "driver": "raw"}` {
		t.Error(got)
	}
}
