package schema

import "fmt"

// Version is a release of QEMU, major and minor number. Versions compare with
// the ordinary operators.
type Version uint16

// The releases one can answer as, and those between them which brought
// something new.
const (
	V7_2  Version = 0x0702
	V8_0  Version = 0x0800
	V8_1  Version = 0x0801
	V8_2  Version = 0x0802
	V9_0  Version = 0x0900
	V9_1  Version = 0x0901
	V9_2  Version = 0x0902
	V10_0 Version = 0x0a00

	// Newest is the release the schema describes.
	Newest = V10_0
)

// String returns the version as "10.0".
func (v Version) String() string { return fmt.Sprintf("%d.%d", v>>8, v&0xff) }
