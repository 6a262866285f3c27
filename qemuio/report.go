package qemuio

import (
	"fmt"
	"strings"
	"time"
)

// outcome is what one request did, for its report.
type outcome struct {
	verb   string
	took   time.Duration
	offset int64
	// asked and done are bytes.
	asked, done int64
	quiet       bool
	machine     bool // in a form for programs
}

// String is the report, "" if none is wanted.
func (o *outcome) String() string {
	seconds := max(o.took, 1).Seconds()
	speed, rate := float64(o.done)/seconds, 1/seconds
	switch {
	case o.quiet:
		return ""
	case o.machine:
		return fmt.Sprintf("%d,1,%s,%.3f,%.3f\n", o.done, clock(o.took), speed, rate)
	}
	took := clock(o.took)
	if o.took < time.Second {
		took = fmt.Sprintf("00.%02d sec", o.took/(time.Second/100))
	}
	return fmt.Sprintf("%s %d/%d bytes at offset %d\n%s, 1 ops; %s (%s/sec and %.4f ops/sec)\n",
		o.verb, o.done, o.asked, o.offset, human(float64(o.done)), took, human(speed), rate)
}

// clock shows a time in hours, minutes, seconds and hundredths.
func clock(d time.Duration) string {
	s := int64(d / time.Second)
	return fmt.Sprintf("%d:%02d:%02d.%02d", s/3600, s/60%60, s%60, d%time.Second/(time.Second/100))
}

// dump shows memory in hexadecimal, 16 bytes a line, with letters and digits
// beside it.
func dump(offset int64, b []byte) string {
	var out strings.Builder
	for len(b) > 0 {
		line := b[:min(16, len(b))]
		fmt.Fprintf(&out, "%08x:  ", offset)
		for _, c := range line {
			fmt.Fprintf(&out, "%02x ", c)
		}
		out.WriteByte(' ')
		for _, c := range line {
			if !isAlnum(c) {
				c = '.'
			}
			out.WriteByte(c)
		}
		out.WriteByte('\n')
		b = b[len(line):]
		offset += int64(len(line))
	}
	return out.String()
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}
