package qom

import (
	"math"
	"sync"

	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
)

// MaxThrottle is the highest rate and burst that can be set.
const MaxThrottle = 1_000_000_000_000_000

// ThrottleBucket limits one kind of requests.
type ThrottleBucket struct {
	Avg    int64  // bytes or requests a second, 0: unlimited
	Max    int64  // rate in bursts, 0: none
	Length uint32 // seconds a burst may last, at least 1
}

// ThrottleLimits is what a throttle-group object allows.
type ThrottleLimits struct {
	BPSTotal, BPSRead, BPSWrite    ThrottleBucket
	IOPSTotal, IOPSRead, IOPSWrite ThrottleBucket
	// IOPSSize is the number of bytes above which a request counts as
	// several; 0: never.
	IOPSSize int64
}

// buckets returns the buckets in the order in which they are checked.
func (l *ThrottleLimits) buckets() []*ThrottleBucket {
	return []*ThrottleBucket{&l.BPSTotal, &l.BPSRead, &l.BPSWrite, &l.IOPSTotal, &l.IOPSRead, &l.IOPSWrite}
}

// check tells what is wrong with the limits, in the reference's order.
func (l *ThrottleLimits) check() error {
	for _, k := range [][3]*ThrottleBucket{{&l.BPSTotal, &l.BPSRead, &l.BPSWrite}, {&l.IOPSTotal, &l.IOPSRead, &l.IOPSWrite}} {
		total, read, write := k[0], k[1], k[2]
		if total.Avg != 0 && (read.Avg != 0 || write.Avg != 0) || total.Max != 0 && (read.Max != 0 || write.Max != 0) {
			return qerr.New("bps/iops/max total values and read/write values cannot be used at the same time")
		}
	}
	if l.IOPSSize != 0 && l.IOPSTotal.Avg == 0 && l.IOPSRead.Avg == 0 && l.IOPSWrite.Avg == 0 {
		return qerr.New("iops size requires an iops value to be set")
	}
	for _, b := range l.buckets() {
		if err := b.check(); err != nil {
			return err
		}
	}
	return nil
}

func (b *ThrottleBucket) check() error {
	switch {
	case b.Avg < 0 || b.Max < 0 || b.Avg > MaxThrottle || b.Max > MaxThrottle:
		return qerr.New("bps/iops/max values must be within [0, %d]", int64(MaxThrottle))
	case b.Length == 0:
		return qerr.New("the burst length cannot be 0")
	case b.Length > 1 && b.Max == 0:
		return qerr.New("burst length set without burst rate")
	case b.Max > MaxThrottle/int64(b.Length):
		return qerr.New("burst length too high for this burst rate")
	case b.Max != 0 && b.Avg == 0:
		return qerr.New("bps_max/iops_max require corresponding bps/iops values")
	case b.Max != 0 && b.Max < b.Avg:
		return qerr.New("bps_max/iops_max cannot be lower than bps/iops")
	}
	return nil
}

// ThrottleGroup is the value of a throttle-group object.
type ThrottleGroup struct {
	mu     sync.Mutex
	limits ThrottleLimits
	done   bool
}

func newThrottleGroup(*Object) any {
	g := &ThrottleGroup{}
	for _, b := range g.limits.buckets() {
		b.Length = 1
	}
	return g
}

// Limits returns what the group allows now.
func (g *ThrottleGroup) Limits() ThrottleLimits {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.limits
}

// Complete checks the limits.
func (g *ThrottleGroup) Complete(*Object) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.done = true
	return g.limits.check()
}

// throttleField is one number of the limits.
type throttleField struct {
	name string
	get  func(l *ThrottleLimits) int64
	set  func(l *ThrottleLimits, n int64)
	// length tells that the number is a burst length, of 32 bits.
	length bool
}

// throttleFields returns the numbers in the order of the schema.
func throttleFields() []throttleField {
	var fields []throttleField
	for _, k := range []struct {
		name   string
		bucket func(l *ThrottleLimits) *ThrottleBucket
	}{
		{"iops-total", func(l *ThrottleLimits) *ThrottleBucket { return &l.IOPSTotal }},
		{"iops-read", func(l *ThrottleLimits) *ThrottleBucket { return &l.IOPSRead }},
		{"iops-write", func(l *ThrottleLimits) *ThrottleBucket { return &l.IOPSWrite }},
		{"bps-total", func(l *ThrottleLimits) *ThrottleBucket { return &l.BPSTotal }},
		{"bps-read", func(l *ThrottleLimits) *ThrottleBucket { return &l.BPSRead }},
		{"bps-write", func(l *ThrottleLimits) *ThrottleBucket { return &l.BPSWrite }},
	} {
		fields = append(fields, throttleField{
			name: k.name,
			get:  func(l *ThrottleLimits) int64 { return k.bucket(l).Avg },
			set:  func(l *ThrottleLimits, n int64) { k.bucket(l).Avg = n },
		}, throttleField{
			name: k.name + "-max",
			get:  func(l *ThrottleLimits) int64 { return k.bucket(l).Max },
			set:  func(l *ThrottleLimits, n int64) { k.bucket(l).Max = n },
		}, throttleField{
			name:   k.name + "-max-length",
			get:    func(l *ThrottleLimits) int64 { return int64(k.bucket(l).Length) },
			set:    func(l *ThrottleLimits, n int64) { k.bucket(l).Length = uint32(n) },
			length: true,
		})
	}
	return append(fields, throttleField{
		name: "iops-size",
		get:  func(l *ThrottleLimits) int64 { return l.IOPSSize },
		set:  func(l *ThrottleLimits, n int64) { l.IOPSSize = n },
	})
}

// throttleType is throttle-group: all limits in one property, and each in one
// of its own which can be set only at the start.
func throttleType() *Type {
	fields := throttleFields()
	typ := &Type{Name: "throttle-group", Parent: typeObject, Interfaces: []string{typeUserCreatable}, New: newThrottleGroup}
	for _, f := range fields {
		typ.Properties = append(typ.Properties, f.property())
	}
	typ.Properties = append(typ.Properties, throttleLimitsProperty(fields))
	return typ
}

func (f *throttleField) property() *Property {
	name := "x-" + f.name
	return &Property{
		Name: name,
		Type: "int",
		Get: func(o *Object, dst []byte) ([]byte, error) {
			limits := o.Value.(*ThrottleGroup).Limits()
			return qjson.AppendInt(dst, f.get(&limits)), nil
		},
		Set: func(o *Object, v qjson.Value) error {
			g := o.Value.(*ThrottleGroup)
			g.mu.Lock()
			defer g.mu.Unlock()
			if g.done {
				return qerr.New("Property cannot be set after initialization")
			}
			n, err := visitInt(v, name)
			switch {
			case err != nil:
				return err
			case n < 0:
				return qerr.New("Property values cannot be negative")
			case f.length && n > math.MaxUint32:
				// The reference's text lacks the space as well.
				return qerr.New("%s value must be in therange [0, %d]", name, uint32(math.MaxUint32))
			}
			f.set(&g.limits, n)
			return nil
		},
	}
}

func throttleLimitsProperty(fields []throttleField) *Property {
	names := make([]string, len(fields))
	byName := map[string]*throttleField{}
	for i := range fields {
		names[i] = fields[i].name
		byName[names[i]] = &fields[i]
	}
	return &Property{
		Name: "limits",
		Type: "ThrottleLimits",
		Get: func(o *Object, dst []byte) ([]byte, error) {
			limits := o.Value.(*ThrottleGroup).Limits()
			return appendSorted(dst, names, func(dst []byte, name string) []byte {
				return qjson.AppendInt(dst, byName[name].get(&limits))
			}), nil
		},
		Set: func(o *Object, v qjson.Value) error {
			g := o.Value.(*ThrottleGroup)
			g.mu.Lock()
			defer g.mu.Unlock()
			limits := g.limits
			if err := setLimits(&limits, v, fields); err != nil {
				return err
			}
			if g.done {
				if err := limits.check(); err != nil {
					return err
				}
			}
			g.limits = limits
			return nil
		},
	}
}

// setLimits changes the numbers that v has. Everything is read before the
// burst lengths are checked, those of bytes first (observed).
func setLimits(l *ThrottleLimits, v qjson.Value, fields []throttleField) error {
	if v.Kind() != qjson.Object {
		return wrongType("limits", "object")
	}
	given := map[string]int64{}
	for _, f := range fields {
		m := v.Get(f.name)
		if !m.Exists() {
			continue
		}
		n, err := visitInt(m, "limits."+f.name)
		if err != nil {
			return err
		}
		given[f.name] = n
	}
	known := func(name string) bool { _, ok := given[name]; return ok }
	if err := checkMembers(v, "limits", known); err != nil {
		return err
	}
	for _, kind := range []string{"bps", "iops"} {
		for _, f := range fields {
			if n := given[f.name]; f.length && f.name[:len(kind)] == kind && n > math.MaxUint32 {
				return qerr.New("%s value must be in the range [0, %d]", f.name, uint32(math.MaxUint32))
			}
		}
	}
	for _, f := range fields {
		if n, ok := given[f.name]; ok {
			f.set(l, n)
		}
	}
	return nil
}
