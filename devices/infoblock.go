package devices

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/qmpblock/qmpblock/devices/hmp"
	"github.com/qmpblock/qmpblock/qjson"
)

// InfoStatus is the human monitor's command "info status".
func (m *Machine) InfoStatus(args string, out io.Writer) (reply string) {
	if _, reply := hmp.Parse("info status", nil, args, out); reply != "" {
		return reply
	}
	switch m.status {
	case Running, Paused:
		return "VM status: " + string(m.status) + "\r\n"
	}
	return "VM status: paused (" + string(m.status) + ")\r\n"
}

// InfoBlock is the human monitor's command "info block [-n] [-v] [device]". It
// says in words what query-block and query-named-block-nodes answer, which are
// asked by blocks and nodes. What is wrong with quotes goes to out.
func InfoBlock(args string, blocks, nodes func() (qjson.Value, error), out io.Writer) (reply string, err error) {
	a, reply := hmp.Parse("info block", []hmp.Param{
		{Kind: hmp.Flag, Name: "n"},
		{Kind: hmp.Flag, Name: "v"},
		{Kind: hmp.Device, Name: "device", Optional: true},
	}, args, out)
	if reply != "" {
		return reply, nil
	}
	t := &blockText{verbose: a.Has("v")}
	device, named := a["device"], a.Has("device")
	if !a.Has("n") {
		list, err := blocks()
		if err != nil {
			return "", err
		}
		t.list(list, func(row qjson.Value) bool { return !named || row.Get("device").Is(device) }, t.drive)
		if !named || t.found {
			return t.reply(), nil
		}
	}
	list, err := nodes()
	if err != nil {
		return "", err
	}
	t.list(list, func(row qjson.Value) bool { return !named || row.Get("node-name").Is(device) }, t.node)
	return t.reply(), nil
}

// blockText is the reply in the making.
type blockText struct {
	strings.Builder
	verbose bool
	found   bool
}

func (t *blockText) reply() string { return strings.ReplaceAll(t.String(), "\n", "\r\n") }

func (t *blockText) line(format string, args ...any) { fmt.Fprintf(t, format+"\n", args...) }

// list describes the rows that fit. An empty line stands before every row but
// the first of all, whether that one fits or not.
func (t *blockText) list(rows qjson.Value, fits func(qjson.Value) bool, describe func(qjson.Value)) {
	first := true
	for row := range rows.Elems() {
		if fits(row) {
			t.found = true
			if !first {
				t.line("")
			}
			describe(row)
		}
		first = false
	}
}

func (t *blockText) drive(row qjson.Value) {
	in := row.Get("inserted")
	name := row.Get("device").Str()
	if name == "" {
		name = in.Get("node-name").Str()
	}
	if name == "" {
		name = row.Get("qdev").Str()
	}
	t.medium(name, in)
	if qdev := row.Get("qdev"); qdev.Exists() {
		t.line("    Attached to:      %s", qdev.Str())
	}
	if status := row.Get("io-status"); status.Exists() && !status.Is("ok") {
		t.line("    I/O status:       %s", status.Str())
	}
	if row.Get("removable").Bool() {
		t.line("    Removable device: %s, tray %s",
			choose(row.Get("locked").Bool(), "locked", "not locked"), choose(row.Get("tray_open").Bool(), "open", "closed"))
	}
	t.inserted(in)
}

func (t *blockText) node(in qjson.Value) {
	t.medium(in.Get("node-name").Str(), in)
	t.inserted(in)
}

func choose(condition bool, yes, no string) string {
	if condition {
		return yes
	}
	return no
}

func (t *blockText) medium(name string, in qjson.Value) {
	if !in.Exists() {
		t.line("%s: [not inserted]", name)
		return
	}
	t.line("%s: %s (%s%s%s)", name, in.Get("file").Str(), in.Get("drv").Str(),
		choose(in.Get("ro").Bool(), ", read-only", ""), choose(in.Get("encrypted").Bool(), ", encrypted", ""))
}

func (t *blockText) inserted(in qjson.Value) {
	if !in.Exists() {
		return
	}
	cache := in.Get("cache")
	t.line("    Cache mode:       %s%s%s", choose(cache.Get("writeback").Bool(), "writeback", "writethrough"),
		choose(cache.Get("direct").Bool(), ", direct", ""), choose(cache.Get("no-flush").Bool(), ", ignore flushes", ""))
	if backing := in.Get("backing_file"); backing.Exists() {
		t.line("    Backing file:     %s (chain depth: %d)", backing.Str(), in.Get("backing_file_depth").Int())
	}
	if mode := in.Get("detect_zeroes"); !mode.Is("off") {
		t.line("    Detect zeroes:    %s", mode.Str())
	}
	t.throttling(in)
	if t.verbose {
		t.line("\nImages:")
		for image := in.Get("image"); image.Exists(); image = image.Get("backing-image") {
			t.image(image)
		}
	}
}

func (t *blockText) throttling(in qjson.Value) {
	limited := false
	for _, name := range []string{"bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"} {
		limited = limited || in.Get(name).Int() != 0
	}
	if !limited {
		return
	}
	t.WriteString("    I/O throttling:  ")
	for _, name := range []string{
		"bps", "bps_rd", "bps_wr", "bps_max", "bps_rd_max", "bps_wr_max",
		"iops", "iops_rd", "iops_wr", "iops_max", "iops_rd_max", "iops_wr_max", "iops_size",
	} {
		fmt.Fprintf(t, " %s=%d", name, in.Get(name).Int())
	}
	t.line(" group=%s", in.Get("group").Str())
}

// image describes an ImageInfo, without its backing image.
func (t *blockText) image(i qjson.Value) {
	size := i.Get("virtual-size").Int()
	t.line("image: %s", i.Get("filename").Str())
	t.line("file format: %s", i.Get("format").Str())
	t.line("virtual size: %s (%d bytes)", humanSize(size), size)
	if actual := i.Get("actual-size"); actual.Exists() {
		t.line("disk size: %s", humanSize(actual.Int()))
	} else {
		t.line("disk size: unavailable")
	}
	if i.Get("encrypted").Bool() {
		t.line("encrypted: yes")
	}
	if i.Get("dirty-flag").Bool() {
		t.line("cleanly shut down: no")
	}
	if cluster := i.Get("cluster-size"); cluster.Exists() {
		t.line("cluster_size: %d", cluster.Int())
	}
	t.backing(i)
	if snapshots := i.Get("snapshots"); snapshots.Len() > 0 {
		t.snapshots(snapshots)
	}
	if specific := i.Get("format-specific").Get("data"); specific.Len() > 0 {
		t.line("Format specific information:")
		t.dump(specific, 1)
	}
}

func (t *blockText) backing(i qjson.Value) {
	name, full := i.Get("backing-filename"), i.Get("full-backing-filename")
	if !name.Exists() {
		return
	}
	actual := ""
	if full.Exists() && full.Str() != name.Str() {
		actual = " (actual path: " + full.Str() + ")"
	}
	t.line("backing file: %s%s", name.Str(), actual)
	if format := i.Get("backing-filename-format"); format.Exists() {
		t.line("backing file format: %s", format.Str())
	}
}

func (t *blockText) snapshots(list qjson.Value) {
	const row = "%-7s %-16s %8s %19s %15s %10s"
	t.line("Snapshot list:")
	t.line(row, "ID", "TAG", "VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT")
	for s := range list.Elems() {
		clock := s.Get("vm-clock-sec").Int()
		icount := ""
		if v := s.Get("icount"); v.Exists() {
			icount = strconv.FormatInt(v.Int(), 10)
		}
		t.line(row, s.Get("id").Str(), s.Get("name").Str(), humanSize(s.Get("vm-state-size").Int()),
			time.Unix(s.Get("date-sec").Int(), 0).Format(time.DateTime),
			fmt.Sprintf("%04d:%02d:%02d.%03d", clock/3600, clock/60%60, clock%60, s.Get("vm-clock-nsec").Int()/1e6), icount)
	}
}

// dump shows any value, one member or element on a line of its own.
func (t *blockText) dump(v qjson.Value, depth int) {
	if v.Kind() == qjson.Array {
		n := 0
		for e := range v.Elems() {
			t.entry("["+strconv.Itoa(n)+"]", e, depth)
			n++
		}
		return
	}
	for name, member := range v.DictOrder() {
		t.entry(strings.ReplaceAll(string(name), "-", " "), member, depth)
	}
}

func (t *blockText) entry(name string, v qjson.Value, depth int) {
	t.WriteString(strings.Repeat("    ", depth))
	switch v.Kind() {
	case qjson.Object, qjson.Array:
		t.line("%s:", name)
		t.dump(v, depth+1)
	case qjson.String:
		t.line("%s: %s", name, v.Str())
	default:
		t.line("%s: %s", name, qjson.AppendValue(nil, v))
	}
}

// humanSize shows a number of bytes with three significant digits and a unit
// of 1024 in which it is less than 1000.
func humanSize(n int64) string {
	const units = "KMGTPE"
	_, exponent := math.Frexp(float64(n) / (1000.0 / 1024.0))
	unit := max(exponent-1, 0) / 10
	number := strconv.FormatFloat(float64(n)/float64(int64(1)<<(10*unit)), 'g', 3, 64)
	if unit == 0 {
		return number + " B"
	}
	return number + " " + units[unit-1:unit] + "iB"
}
