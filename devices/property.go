package devices

import (
	"math"
	"strconv"

	"github.com/qmpblock/qmpblock/keyval"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/qjson"
)

// property is one row of a model. Values are kept as text: numbers in decimal,
// booleans as true and false, lists as JSON, all else as it is.
type property struct {
	name string
	kind kind
	def  string
}

// Defaults that mean "not set": the device chooses when it starts.
const (
	unset32      = "4294967295"
	autoQueues16 = "65535"
	autoAddress  = "-1"
)

// kind is what a property's value can be.
type kind uint8

const (
	boolean kind = iota
	text
	onOffAuto
	onError
	uint16Number
	uint32Number
	uint64Number
	int32Number
	size      // bytes, below 2^32
	blockSize // bytes, a power of two; 0: not set
	pciAddress
	drive
	bootIndex
	iothreadLink
	vqMapping

	// The following cannot be written.
	busNumber
	pciAddressText
	unreadable
	child // the device or bus of that name inside
	alias // the property of that name of the virtio device inside
)

// typeName is what qom-list says of a property of this kind.
func (k kind) typeName() string {
	return [...]string{
		boolean: "bool", text: "str", onOffAuto: "OnOffAuto", onError: "BlockdevOnError",
		uint16Number: "uint16", uint32Number: "uint32", uint64Number: "uint64", int32Number: "int32",
		size: "size", blockSize: "size", pciAddress: "str", drive: "str", bootIndex: "int32",
		iothreadLink: "link<iothread>", vqMapping: "IOThreadVirtQueueMappingList",
		busNumber: "busnr", pciAddressText: "str", unreadable: "str", child: "", alias: "",
	}[k]
}

// writable tells whether a client may set such a property at all.
func (k kind) writable() bool { return k < busNumber }

// appendJSON appends a value as qom-get prints it.
func (k kind) appendJSON(dst []byte, v string) []byte {
	switch k {
	case text, onOffAuto, onError, drive, iothreadLink, pciAddressText:
		return qjson.AppendString(dst, v)
	}
	return append(dst, v...)
}

// parse turns what a client sent into a value, without side effects. owner is
// the model's name; it appears in some errors.
func (p *property) parse(owner string, v qjson.Value) (string, error) {
	switch p.kind {
	case boolean:
		if v.Kind() != qjson.Bool {
			return "", wrongType(p.name, "boolean")
		}
		return strconv.FormatBool(v.Bool()), nil
	case text, drive, iothreadLink:
		return parseText(p.name, v)
	case onOffAuto:
		return parseEnum(p.name, v, "on", "off", "auto")
	case onError:
		return parseEnum(p.name, v, "report", "ignore", "enospc", "stop", "auto")
	case uint16Number:
		return parseUnsigned(p.name, v, math.MaxUint16, "uint16_t")
	case uint32Number:
		return parseUnsigned(p.name, v, math.MaxUint32, "uint32_t")
	case uint64Number:
		return parseUnsigned(p.name, v, math.MaxUint64, "uint64_t")
	case int32Number, bootIndex:
		return parseSigned(p.name, v)
	case size:
		return parseSize(owner, p.name, v)
	case blockSize:
		return parseBlockSize(p.name, v)
	case pciAddress:
		return parsePCIAddress(owner, p.name, v)
	case vqMapping:
		return parseVQMapping(p.name, v)
	}
	return "", qerr.New("Property '%s.%s' is not writable", owner, p.name)
}

// read makes what [property.parse] takes of a value that is text.
func (p *property) read(v qjson.Value) (qjson.Value, error) {
	if v.Kind() != qjson.String {
		return v, nil
	}
	var (
		s   string
		err error
	)
	switch p.kind {
	case boolean:
		on, ok := keyval.ParseBool(v.Str())
		if !ok {
			return v, qerr.New("Parameter '%s' expects 'on' or 'off'", p.name)
		}
		s = strconv.FormatBool(on)
	case uint16Number, uint32Number, uint64Number:
		var n uint64
		n, err = keyval.ParseUint(v.Str())
		s = strconv.FormatUint(n, 10)
	case int32Number, bootIndex:
		var n int64
		n, err = keyval.ParseInt(v.Str())
		s = strconv.FormatInt(n, 10)
	case size, blockSize:
		n, bad := keyval.ParseSize(v.Str())
		if bad != nil {
			return v, qerr.New("Parameter '%s' expects size", p.name)
		}
		s = strconv.FormatUint(n, 10)
	default:
		return v, nil
	}
	if err != nil {
		return v, qerr.New("Parameter '%s' expects integer", p.name)
	}
	return qjson.Parse([]byte(s))
}

func wrongType(name, expected string) error {
	return qerr.New("Invalid parameter type for '%s', expected: %s", name, expected)
}

func parseText(name string, v qjson.Value) (string, error) {
	if v.Kind() != qjson.String {
		return "", wrongType(name, "string")
	}
	return v.Str(), nil
}

func parseEnum(name string, v qjson.Value, values ...string) (string, error) {
	s, err := parseText(name, v)
	if err != nil {
		return "", err
	}
	for _, known := range values {
		if s == known {
			return s, nil
		}
	}
	return "", qerr.New("Parameter '%s' does not accept value '%s'", name, s)
}

// parseUnsigned takes negative numbers as 2^64-n, which only the widest type
// holds.
func parseUnsigned(name string, v qjson.Value, limit uint64, typ string) (string, error) {
	if v.Kind() != qjson.Int && v.Kind() != qjson.Uint {
		return "", qerr.New("Parameter '%s' expects uint64", name)
	}
	if v.Uint() > limit {
		return "", qerr.New("Parameter '%s' expects %s", name, typ)
	}
	return strconv.FormatUint(v.Uint(), 10), nil
}

func parseSigned(name string, v qjson.Value) (string, error) {
	if v.Kind() != qjson.Int {
		return "", wrongType(name, "integer")
	}
	if n := v.Int(); n < math.MinInt32 || n > math.MaxInt32 {
		return "", qerr.New("Parameter '%s' expects int32_t", name)
	}
	return strconv.FormatInt(v.Int(), 10), nil
}

func parseSize(owner, name string, v qjson.Value) (string, error) {
	s, err := parseUnsigned(name, v, math.MaxUint64, "")
	if err != nil {
		return "", err
	}
	if v.Uint() > math.MaxUint32 {
		return "", qerr.New("Property %s.%s doesn't take value %s (maximum: %d)", owner, name, s, uint32(math.MaxUint32))
	}
	return s, nil
}

const (
	minBlockSize = 512
	maxBlockSize = 2 << 20
)

func parseBlockSize(name string, v qjson.Value) (string, error) {
	s, err := parseUnsigned(name, v, math.MaxUint64, "")
	if err != nil {
		return "", err
	}
	n := v.Uint()
	if n != 0 && (n < minBlockSize || n > maxBlockSize || n&(n-1) != 0) {
		return "", qerr.New("parameter %s must be a power of 2 between %d and %d", name, minBlockSize, maxBlockSize)
	}
	return s, nil
}
