package schema

import (
	"math"
	"os/exec"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/keyval"
	"github.com/qmpblock/qmpblock/qjson"
)

// options are command line options with a mistake and what the reference says
// about it (transcripts cli/blockdev-errors, cli/object-errors).
var options = []struct{ option, value, complaint string }{
	{"--blockdev", "bogus,node-name=n0", "Parameter 'driver' does not accept value 'bogus'"},
	{"--blockdev", "driver=", "Parameter 'driver' does not accept value ''"},
	{"--blockdev", "driver.x=1", "Parameters 'driver.*' are unexpected"},
	{"--blockdev", "node-name=n0", "Parameter 'driver' is missing"},
	{"--blockdev", "null-co,node-name=n0,a=1,b=2,c=3", "Parameter 'b' is unexpected"},
	{"--blockdev", "null-co,node-name.x=1", "Parameters 'node-name.*' are unexpected"},
	{"--blockdev", "null-co,node-name=n0,size=abc", "Parameter 'size' expects integer"},
	{"--blockdev", "null-co,node-name=n0,size=1M", "Parameter 'size' expects integer"},
	{"--blockdev", "null-co,node-name=n0,size=", "Parameter 'size' expects integer"},
	{"--blockdev", "null-co,node-name=n0,size=9223372036854775808", "Parameter 'size' expects integer"},
	{"--blockdev", "null-co,node-name=n0,size.x=1", "Parameters 'size.*' are unexpected"},
	{"--blockdev", "null-co,node-name=n0,latency-ns=18446744073709551616", "Parameter 'latency-ns' expects integer"},
	{"--blockdev", "null-co,node-name=n0,latency-ns.x=1", "Parameters 'latency-ns.*' are unexpected"},
	{"--blockdev", "null-co,node-name=n0,read-only=maybe", "Parameter 'read-only' expects 'on' or 'off'"},
	{"--blockdev", "null-co,node-name=n0,read-only=ON", "Parameter 'read-only' expects 'on' or 'off'"},
	{"--blockdev", "null-co,node-name=n0,read-only.0=on", "Parameters 'read-only.*' are unexpected"},
	{"--blockdev", "null-co,node-name=n0,discard=Ignore", "Parameter 'discard' does not accept value 'Ignore'"},
	{"--blockdev", "null-co,node-name=n0,cache=on", "Invalid parameter type for 'cache', expected: object"},
	{"--blockdev", "null-co,node-name=n0,cache.x=1", "Parameter 'cache.x' is unexpected"},
	{"--blockdev", "raw,node-name=r0,file.driver=null-co,file.size=x", "Parameter 'file.size' expects integer"},
	{"--blockdev", "raw,node-name=r0,file.0=a", "Invalid parameter type for 'file', expected: BlockdevRef"},
	{"--blockdev", "raw,node-name=r0,file.driver=raw,file.file.0=a", "Invalid parameter type for 'file', expected: BlockdevRef"},
	{"--blockdev", "raw,node-name=r0,file.driver=raw,file.file.driver=null-co,file.file.read-only=x", "Parameter 'file.file.read-only' expects 'on' or 'off'"},
	{"--blockdev", "quorum,node-name=q,children=a,vote-threshold=1", "Invalid parameter type for 'children', expected: array"},
	{"--blockdev", "quorum,node-name=q,children.0=a,children.1.driver=null-co,children.1.size=x,vote-threshold=1", "Parameter 'children.1.size' expects integer"},
	{"--blockdev", "quorum,node-name=q,children.0=a,children.1.x=1,vote-threshold=1", "Parameter 'children.1.driver' is missing"},
	{"--blockdev", "blkdebug,node-name=b,image=a,take-child-perms.0=write,take-child-perms.1=x", "Parameter 'null' does not accept value 'x'"},
	{"--blockdev", "blkdebug,node-name=b,image=a,inject-error.0=1", "Invalid parameter type for 'inject-error.0', expected: object"},
	{"--blockdev", "blkdebug,node-name=b,image=a,max-discard=2147483648", "Parameter 'max-discard' expects int32_t"},
	{"--blockdev", "blkdebug,node-name=b,image=a,max-discard=x", "Parameter 'max-discard' expects integer"},
	{"--blockdev", "blklogwrites,node-name=b,file=a,log=b,log-sector-size=-1", "Parameter 'log-sector-size' expects uint32_t"},
	{"--blockdev", "blklogwrites,node-name=b,file=a,log=b,log-sector-size=1k", "Parameter 'log-sector-size' expects integer"},
	{"--blockdev", "qcow2,node-name=q,file=a,overlap-check=x", "Parameter 'overlap-check' does not accept value 'x'"},
	{"--blockdev", "qcow2,node-name=q,file=a,overlap-check.main-header=x", "Parameter 'overlap-check.main-header' expects 'on' or 'off'"},
	{"--blockdev", "copy-before-write,node-name=c,file=a,target=b,min-cluster-size=x", "Parameter 'min-cluster-size' expects size"},
	{"--blockdev", "copy-before-write,node-name=c,file=a,target=b,min-cluster-size=16E", "Parameter 'min-cluster-size' expects size"},
	{"--blockdev", "copy-before-write,node-name=c,file=a,target=b,min-cluster-size.a=1", "Parameters 'min-cluster-size.*' are unexpected"},
	{"--object", "bogus,id=x", "Parameter 'qom-type' does not accept value 'bogus'"},
	{"--object", "iothread", "Parameter 'id' is missing"},
	{"--object", "iothread,id=io0,bogus=1", "Parameter 'bogus' is unexpected"},
	{"--object", "throttle-group,id=t,x-iops-total=abc", "Parameter 'x-iops-total' expects integer"},
	{"--object", "throttle-group,id=t,limits.iops-total=abc", "Parameter 'limits.iops-total' expects integer"},
	{"--object", "memory-backend-ram,id=m,size=1x", "Parameter 'size' expects size"},
	{"--object", "memory-backend-ram,id=m,size=1,host-nodes.0=1,host-nodes.1=70000", "Parameter 'null' expects uint16_t"},
	{"--object", "memory-backend-ram,id=m,size=1,host-nodes.0=1,host-nodes.1=x", "Parameter 'host-nodes.1' expects integer"},
	{"--object", "memory-backend-ram,id=m,size=1,host-nodes=1-3", "Invalid parameter type for 'host-nodes', expected: array"},
	{"--monitor", "c0,mode=bogus", "Parameter 'mode' does not accept value 'bogus'"},
	{"--monitor", "c0,bogus=1", "Parameter 'bogus' is unexpected"},
	{"--monitor", "c0,pretty=maybe", "Parameter 'pretty' expects 'on' or 'off'"},
	{"--monitor", "pretty=on", "Parameter 'chardev' is missing"},
}

// optionComplaint reads an option as the storage daemon does.
func optionComplaint(t *testing.T, option, value string) string {
	t.Helper()
	implied := map[string]string{"--blockdev": "driver", "--object": "qom-type", "--monitor": "chardev"}[option]
	v, _, err := keyval.ParseOption(value, implied)
	if err != nil {
		t.Fatalf("%s %s: %v", option, value, err)
	}
	switch option {
	case "--blockdev":
		_, err = DecodeBlockdevOptions(v, Keyval)
	case "--object":
		_, err = DecodeObjectOptions(v, Keyval)
	case "--monitor":
		_, err = DecodeMonitorOptions(v, Keyval)
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, o := range options {
		if got := optionComplaint(t, o.option, o.value); got != o.complaint {
			t.Errorf("%s %s\n got: %s\nwant: %s", o.option, o.value, got, o.complaint)
		}
	}
}

func TestOptionsAsTheReference(t *testing.T) {
	t.Parallel()
	prog := referenceProgram(t)
	for _, o := range options {
		out, err := exec.Command(prog, o.option, o.value).CombinedOutput()
		if err == nil {
			t.Errorf("%s %s: the reference succeeded", o.option, o.value)
			continue
		}
		if !strings.HasSuffix(strings.TrimSpace(string(out)), ": "+o.complaint) {
			t.Errorf("%s %s: the reference says %s", o.option, o.value, out)
		}
	}
}

// TestOptionValues has the notations that are accepted (transcript cli/sizes).
func TestOptionValues(t *testing.T) {
	t.Parallel()
	null := func(text string) *BlockdevOptionsNull {
		v, _, err := keyval.ParseOption("null-co,node-name=n0,"+text, "driver")
		if err != nil {
			t.Fatal(err)
		}
		o, err := DecodeBlockdevOptions(v, Keyval)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return o.Variant.(*BlockdevOptionsNull)
	}
	for text, want := range map[string]int64{
		"1048576": 1 << 20, "0x1000": 4096, "02000": 1024, "-1": -1, "+7": 7, " 1": 1, "-0x10": -16,
		"9223372036854775807": math.MaxInt64, "-9223372036854775808": math.MinInt64,
	} {
		if got := *null("size=" + text).Size; got != want {
			t.Errorf("size=%s is %d, not %d", text, got, want)
		}
	}
	for text, want := range map[string]uint64{"18446744073709551615": math.MaxUint64, "-1": math.MaxUint64, "010": 8} {
		if got := *null("latency-ns=" + text).LatencyNs; got != want {
			t.Errorf("latency-ns=%s is %d, not %d", text, got, want)
		}
	}
	for text, want := range map[string]bool{"on": true, "yes": true, "true": true, "y": true, "off": false, "no": false, "false": false, "n": false} {
		if got := *null("read-zeroes=" + text).ReadZeroes; got != want {
			t.Errorf("read-zeroes=%s is %t", text, got)
		}
	}
}

// TestModesDiffer has the same text as JSON and as an option.
func TestModesDiffer(t *testing.T) {
	t.Parallel()
	v, err := qjson.Parse([]byte(`{"driver": "null-co", "size": "1"}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeBlockdevOptions(v, Keyval); err != nil {
		t.Error(err)
	}
	want := "Invalid parameter type for 'size', expected: integer"
	if _, err := DecodeBlockdevOptions(v, QMP); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
