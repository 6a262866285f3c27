package reference

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

var allStates = flag.Bool("all", false, "play everything with jobs in all states, against the reference itself instead of the table")

// kind is a way to begin a job j on the chain of makeChain.
type kind struct {
	name, command, arguments string
	// follows: it becomes ready, and is completed or cancelled; endless: it is
	// cancelled; groups: a transaction may begin it; dirties: it needs a bitmap in
	// which there is something; slow: it needs a slow node; variant: it is like
	// another, and no verbs follow each other.
	follows, endless, groups, dirties, slow, variant bool
	// policies are its arguments about failures; places are where it may fail.
	policies []string
	places   []place
}

// place is where requests fail: in a node below which an injector can be.
type place struct{ name, node, rule string }

// Both extents of an image begin at these sectors of its file.
const firstExtent, secondExtent = 640, 896

func at(name, node, iotype string, sector int) place {
	return place{name, node, fmt.Sprintf(`"event": "none", "iotype": %q, "sector": %d`, iotype, sector)}
}

// data is where content is written to an image, wherever in its file that is;
// flush is where it is made durable.
func data(node string) place { return place{"write", node, `"event": "write_aio"`} }

func flush(node string) place { return place{"flush", node, `"event": "none", "iotype": "flush"`} }

var (
	copies  = []string{"on-source-error", "on-target-error"}
	chained = []string{"on-error"}
)

var kinds = []kind{
	{name: "backup", command: "blockdev-backup", arguments: `"device": "n4", "target": "r", "sync": "full", "x-perf": {"max-workers": 1}`, groups: true, policies: copies,
		places: []place{at("read", "f0", "read", firstExtent), at("read late", "f4", "read", secondExtent), at("write", "r", "write", 0), at("write late", "r", "write", 1280)}},
	{name: "backup top", variant: true, command: "blockdev-backup", arguments: `"device": "n4", "target": "r", "sync": "top"`, groups: true, policies: copies,
		places: []place{at("read", "f4", "read", firstExtent), at("write late", "r", "write", 1280)}},
	{name: "backup none", command: "blockdev-backup", arguments: `"device": "n4", "target": "r", "sync": "none"`, groups: true, endless: true},
	{name: "backup incremental", command: "blockdev-backup", arguments: `"device": "n4", "target": "r", "sync": "incremental", "bitmap": "b", "x-perf": {"max-workers": 1}`, groups: true, dirties: true, policies: copies,
		places: []place{at("read", "f4", "read", secondExtent), at("write", "r", "write", 1280)}},
	{name: "backup bitmap", variant: true, command: "blockdev-backup", arguments: `"device": "n4", "target": "r", "sync": "bitmap", "bitmap": "b", "bitmap-mode": "always", "x-perf": {"max-workers": 1}`, groups: true, dirties: true, policies: copies,
		places: []place{at("write", "r", "write", 1280)}},
	{name: "drive-backup", variant: true, command: "drive-backup", arguments: `"device": "n4", "target": "d.qcow2", "format": "qcow2", "sync": "top"`, groups: true, policies: copies,
		places: []place{at("read", "f4", "read", firstExtent)}},
	{name: "mirror", command: "blockdev-mirror", arguments: `"device": "n4", "target": "r", "sync": "full", "buf-size": 65536`, follows: true, policies: copies,
		places: []place{at("read", "f0", "read", firstExtent), at("read late", "f4", "read", secondExtent), at("write", "r", "write", 0), at("write late", "r", "write", 1280), flush("r")}},
	{name: "mirror top", variant: true, command: "blockdev-mirror", arguments: `"device": "n4", "target": "r", "sync": "top", "buf-size": 65536, "copy-mode": "write-blocking"`, follows: true, policies: copies,
		places: []place{at("read", "f4", "read", firstExtent), at("write late", "r", "write", 1280), flush("r")}},
	{name: "mirror none", command: "blockdev-mirror", arguments: `"device": "n4", "target": "r", "sync": "none"`, follows: true, policies: copies, places: []place{flush("r")}},
	{name: "drive-mirror", variant: true, command: "drive-mirror", arguments: `"device": "n4", "target": "d.qcow2", "format": "qcow2", "sync": "top", "buf-size": 65536, "node-name": "d"`, follows: true, policies: copies,
		places: []place{at("read", "f4", "read", firstExtent)}},
	{name: "commit n3 to n2", command: "block-commit", arguments: `"device": "n4", "top-node": "n3", "base-node": "n2"`, policies: chained,
		places: []place{at("read", "f3", "read", firstExtent), at("read late", "f3", "read", secondExtent), at("write", "f2", "write", firstExtent+128), at("write late", "f2", "write", secondExtent), flush("f2")}},
	{name: "commit n3 to n0", variant: true, command: "block-commit", arguments: `"device": "n4", "top-node": "n3", "base-node": "n0"`, policies: chained,
		places: []place{at("read late", "f3", "read", secondExtent), at("write", "f0", "write", firstExtent+128)}},
	{name: "commit n4 to n1", command: "block-commit", arguments: `"device": "n4", "base-node": "n1"`, follows: true, policies: chained,
		places: []place{at("read", "f2", "read", firstExtent), at("read late", "f4", "read", secondExtent), at("write", "f1", "write", firstExtent+128), at("write late", "f1", "write", secondExtent), flush("f1")}},
	{name: "stream n4", command: "block-stream", arguments: `"device": "n4"`, policies: chained,
		places: []place{at("read", "f0", "read", firstExtent), at("read late", "f3", "read", firstExtent), data("f4")}},
	{name: "stream n4 over n2", variant: true, command: "block-stream", arguments: `"device": "n4", "base-node": "n2"`, policies: chained,
		places: []place{at("read", "f3", "read", firstExtent), data("f4")}},
	{name: "stream n3 to n2", command: "block-stream", arguments: `"device": "n3", "bottom": "n2"`, policies: chained,
		places: []place{at("read", "f2", "read", firstExtent), data("f3")}},
	{name: "create", command: "blockdev-create", arguments: `"options": {"driver": "qcow2", "file": "u", "size": 1048576}`},
	{name: "create slowly", command: "blockdev-create", arguments: `"options": {"driver": "qcow2", "file": "slow", "size": 1048576}`, slow: true},
}

// situation is how a job was brought to where something is done to it.
type situation struct {
	name string
	// extra are arguments besides; in a group another job is begun with it.
	extra string
	group string
	alone bool     // the jobs of the group do not end together
	then  []string // verbs
	// fault are requests that fail, as long as the job may go on; in which node.
	fault, node string
	// watched: the jobs do not come to rest.
	watched bool
	fits    func(*kind) bool
	// depth is how many verbs follow each other; 0: those that lead are tried, on a
	// job that is paused.
	depth int
}

func blockJob(k *kind) bool      { return len(k.policies) > 0 || k.endless }
func follower(k *kind) bool      { return k.follows }
func straight(k *kind) bool      { return blockJob(k) && !k.follows && !k.endless }
func straightGroup(k *kind) bool { return k.groups && !k.endless }
func endlessGroup(k *kind) bool  { return k.endless }
func creator(k *kind) bool       { return !blockJob(k) && !k.slow }
func slowCreator(k *kind) bool   { return k.slow }

const (
	byHand  = `"auto-finalize": false, "auto-dismiss": false`
	limited = `"speed": 1`
	// Others in a group: one that lasts, one that ends and one that fails.
	slowOther    = `"device": "n2", "target": "o", "sync": "full", "speed": 1`
	readyOther   = `"device": "n2", "target": "o", "sync": "full"`
	failingOther = `"device": "n2", "target": "u", "sync": "full"`
	failingLate  = failingOther + ", " + limited
)

var situations = []situation{
	{name: "running", extra: limited, fits: blockJob, depth: 2},
	{name: "running by hand", extra: limited + ", " + byHand, fits: blockJob, depth: 1},
	{name: "ready", fits: follower, depth: 2},
	{name: "ready by hand", extra: byHand, fits: follower, depth: 2},
	{name: "pending", extra: byHand, fits: straight, depth: 2},
	{name: "pending after completion", extra: `"auto-finalize": false`, then: []string{"complete"}, fits: follower, depth: 2},
	{name: "pending after cancellation", extra: `"auto-finalize": false`, then: []string{"soft cancel"}, fits: follower, depth: 2},
	{name: "concluded", extra: `"auto-dismiss": false`, fits: straight, depth: 1},
	{name: "concluded after completion", extra: `"auto-dismiss": false`, then: []string{"complete"}, fits: follower, depth: 1},
	{name: "concluded after cancellation", extra: limited + `, "auto-dismiss": false`, then: []string{"cancel"}, fits: blockJob, depth: 1},
	{name: "null", fits: straight, depth: 1},
	{name: "waiting", extra: byHand, group: slowOther, fits: straightGroup, depth: 2},
	{name: "running in a group", extra: limited, group: readyOther, fits: straightGroup, depth: 2},
	{name: "running in a group", extra: limited, group: slowOther, fits: endlessGroup, depth: 2},
	{name: "pending in a group", extra: `"auto-finalize": false`, group: slowOther, then: []string{"other speed 0"}, fits: straightGroup, depth: 2},
	{name: "running in a group that fails", extra: limited, group: failingOther, fault: `"event": "none", "iotype": "write"`, node: "u", fits: straightGroup, depth: 1},
	{name: "waiting in a group that fails", extra: byHand, group: failingLate, then: []string{"other speed 0"}, fault: `"event": "none", "iotype": "write", "sector": 1280`, node: "u", fits: straightGroup, depth: 1},
	{name: "running beside one that fails", extra: limited, group: failingOther, alone: true, fault: `"event": "none", "iotype": "write"`, node: "u", fits: straightGroup, depth: 1},
	{name: "running", watched: true, fits: slowCreator, depth: 1},
	{name: "concluded", fits: creator, depth: 1},
}

// failures are what becomes of requests that fail: what the policies say, and
// what else the injector knows. Rare ones are tried in one place of each kind.
var failures = []struct {
	name, policy, fault string
	rare                bool
}{
	{"report", "report", "", false},
	{"ignore", "ignore", `, "once": true`, false},
	{"stop", "stop", `, "once": true`, false},
	{"stop again", "stop", "", true},
	{"enospc", "enospc", `, "once": true, "errno": 28`, true},
	{"enospc of another", "enospc", "", true},
}

// situationsOf are those of a kind.
func situationsOf(k *kind) []situation {
	var list []situation
	for _, s := range situations {
		if k.variant && !*allStates {
			s.depth = min(s.depth, 1)
		}
		if s.fits(k) {
			list = append(list, s)
		}
	}
	for n, p := range k.places {
		for _, f := range failures {
			if f.rare && n > 0 && !*allStates {
				continue
			}
			var extra []string
			for _, argument := range k.policies {
				extra = append(extra, fmt.Sprintf("%q: %q", argument, f.policy))
			}
			list = append(list, situation{
				name: p.name + " fails, " + f.name, extra: strings.Join(extra, ", "), fault: p.rule + f.fault, node: p.node,
			})
		}
	}
	return list
}

// verb is something that a client may do to a job. What a lead makes of the job is
// where others are tried as well; an alias of another verb is tried alone.
type verb struct {
	name, request string
	part          part
}

type part int

const (
	lead part = iota
	follow
	alias
	never // only on the way to a situation
)

func verbOf(p part, name, command, arguments string) verb {
	return verb{name, do(name, command, arguments).request, p}
}

var verbs = []verb{
	verbOf(lead, "cancel", "job-cancel", `"id": "j"`),
	verbOf(lead, "pause", "job-pause", `"id": "j"`),
	verbOf(lead, "resume", "job-resume", `"id": "j"`),
	verbOf(lead, "complete", "job-complete", `"id": "j"`),
	verbOf(lead, "finalize", "job-finalize", `"id": "j"`),
	verbOf(follow, "dismiss", "job-dismiss", `"id": "j"`),
	verbOf(lead, "soft cancel", "block-job-cancel", `"device": "j"`),
	verbOf(alias, "hard cancel", "block-job-cancel", `"device": "j", "force": true`),
	verbOf(alias, "block pause", "block-job-pause", `"device": "j"`),
	verbOf(alias, "block resume", "block-job-resume", `"device": "j"`),
	verbOf(alias, "block complete", "block-job-complete", `"device": "j"`),
	verbOf(alias, "block finalize", "block-job-finalize", `"id": "j"`),
	verbOf(alias, "block dismiss", "block-job-dismiss", `"id": "j"`),
	verbOf(lead, "speed 0", "block-job-set-speed", `"device": "j", "speed": 0`),
	verbOf(never, "other speed 0", "block-job-set-speed", `"device": "other", "speed": 0`),
	verbOf(follow, "speed 1", "block-job-set-speed", `"device": "j", "speed": 1`),
	verbOf(follow, "speed -1", "block-job-set-speed", `"device": "j", "speed": -1`),
	verbOf(follow, "write-blocking", "block-job-change", `"id": "j", "type": "mirror", "copy-mode": "write-blocking"`),
	verbOf(follow, "background", "block-job-change", `"id": "j", "type": "mirror", "copy-mode": "background"`),
}

// TestStates does everything to all kinds of jobs in all situations, and lets their
// requests fail: replies, events, how jobs stand, the graph and the end are as in
// the table, which has what the reference does.
func TestStates(t *testing.T) {
	t.Parallel()
	if *rewritePairs {
		recordStates(t)
		return
	}
	compareStates(t, chosen(t))
}

// TestStatesOfReference: the table is what the reference does.
func TestStatesOfReference(t *testing.T) {
	t.Parallel()
	if *rewritePairs || *allStates || daemon.Race {
		t.Skip("the table is recorded, or not used, or races are looked for, in ours")
	}
	compareStates(t, daemon.Reference(t))
}

func compareStates(t *testing.T, program *daemon.Program) {
	t.Helper()
	images := makeChain(t)
	text, err := os.ReadFile(statesTable)
	if err != nil {
		t.Fatal(err)
	}
	table := readAnswers(string(text))
	for n := range kinds {
		if kinds[n].variant && daemon.Race {
			continue // as many goroutines meet in the kind that it is like
		}
		for _, s := range situationsOf(&kinds[n]) {
			t.Run(kinds[n].name+"/"+s.name, func(t *testing.T) {
				t.Parallel()
				compareSituation(t, program, images, &kinds[n], &s, table)
			})
		}
	}
}

// compareSituation plays a situation again if something is not as the table says,
// and believes only what is wrong each time.
func compareSituation(t *testing.T, program *daemon.Program, images string, k *kind, s *situation, table answers) {
	t.Helper()
	known := table.of(k, s)
	if *allStates {
		var err error
		if known, err = record(daemon.Reference(t), images, k, s); err != nil {
			t.Fatal(err)
		}
	}
	var wrong answers
	for range runs {
		came, err := play(program, images, k, s)
		if err != nil {
			t.Fatal(err)
		}
		if wrong = wrong.narrow(known.differ(came)); len(wrong) == 0 {
			return
		}
	}
	for _, key := range slices.Sorted(maps.Keys(wrong)) {
		t.Errorf("%s\n  the table: %s\n  it is:     %s", key, known[key], wrong[key])
	}
}
