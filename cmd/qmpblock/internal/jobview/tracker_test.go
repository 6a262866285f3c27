package jobview

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTracker plays what a server says, a message a line, and compares the
// lines that come of it.
func TestTracker(t *testing.T) {
	t.Parallel()
	const (
		created  = `JOB_STATUS_CHANGE {"id": "j0", "status": "created"}`
		runs     = `JOB_STATUS_CHANGE {"id": "j0", "status": "running"}`
		pending  = `JOB_STATUS_CHANGE {"id": "j0", "status": "pending"}`
		aborting = `JOB_STATUS_CHANGE {"id": "j0", "status": "aborting"}`
		ends     = `JOB_STATUS_CHANGE {"id": "j0", "status": "concluded"}`
		vanishes = `JOB_STATUS_CHANGE {"id": "j0", "status": "null"}`
	)
	for name, c := range map[string]struct{ said, want []string }{
		"there already": {
			said: []string{
				`query-block-jobs [{"device": "b", "io-status": "ok", "speed": 1}]`,
				`query-jobs [{"id": "c", "type": "create", "status": "concluded", "current-progress": 1, "total-progress": 1, "error": "No space"},
					{"id": "b", "type": "mirror", "status": "ready", "current-progress": 7, "total-progress": 7}]`,
			},
			want: []string{"b mirror ready 7/7", "c create concluded 1/1 failed: No space", "1 unfinished"},
		},
		"none": {said: []string{"query-block-jobs []", "query-jobs []"}, want: []string{"0 unfinished"}},
		"dismisses itself": {
			said: []string{created, runs, `query-jobs [{"id": "j0", "type": "stream", "status": "running", "current-progress": 2, "total-progress": 8}]`,
				pending, `BLOCK_JOB_PENDING {"id": "j0", "type": "stream"}`,
				`BLOCK_JOB_COMPLETED {"device": "j0", "type": "stream", "len": 8, "offset": 8, "speed": 0}`, ends, vanishes},
			want: []string{"j0 stream created 0/0", "j0 stream running 0/0", "j0 stream running 2/8",
				"j0 stream pending 2/8", "j0 stream concluded 8/8 completed", "0 unfinished"},
		},
		"over before it can be asked for": {
			said: []string{created, runs, `BLOCK_JOB_COMPLETED {"device": "j0", "type": "commit", "len": 8, "offset": 8, "speed": 0}`, ends, vanishes},
			want: []string{"j0 commit created 0/0", "j0 commit running 0/0", "j0 commit concluded 8/8 completed", "0 unfinished"},
		},
		"ready": {
			said: []string{created, `JOB_STATUS_CHANGE {"id": "j0", "status": "ready"}`,
				`BLOCK_JOB_READY {"device": "j0", "type": "mirror", "len": 8, "offset": 8, "speed": 0}`},
			want: []string{"j0 mirror created 0/0", "j0 mirror ready 0/0", "1 unfinished"},
		},
		"an error": {
			said: []string{runs, `BLOCK_JOB_ERROR {"device": "j0", "operation": "write", "action": "report"}`, aborting,
				`BLOCK_JOB_COMPLETED {"device": "j0", "type": "backup", "len": 8, "offset": 3, "speed": 0, "error": "Input/output error"}`, ends,
				`query-jobs [{"id": "j0", "type": "backup", "status": "concluded", "current-progress": 3, "total-progress": 8, "error": "Input/output error"}]`},
			want: []string{"j0 backup running 0/0", "j0 backup aborting 0/0",
				"j0 backup concluded 3/8 failed: Input/output error", "0 unfinished"},
		},
		"cancelled, and dismissed later": {
			said: []string{`query-jobs [{"id": "j0", "type": "backup", "status": "running", "current-progress": 2, "total-progress": 8}]`, aborting,
				`BLOCK_JOB_CANCELLED {"device": "j0", "type": "backup", "len": 8, "offset": 3, "speed": 0}`, ends,
				`query-jobs [{"id": "j0", "type": "backup", "status": "concluded", "current-progress": 3, "total-progress": 8, "error": "Operation canceled"}]`,
				vanishes, created},
			want: []string{"j0 backup running 2/8", "j0 backup aborting 2/8", "j0 backup concluded 3/8 cancelled", "1 unfinished"},
		},
		"not a block job": {
			said: []string{created, runs, ends,
				`query-jobs [{"id": "j0", "type": "create", "status": "concluded", "current-progress": 1, "total-progress": 1}]`, vanishes},
			want: []string{"j0 create created 0/0", "j0 create running 0/0", "j0 create concluded 1/1 completed", "0 unfinished"},
		},
		"gone before it can be asked for": {
			said: []string{created, runs, ends, vanishes, "query-jobs []"},
			want: []string{"j0 - created 0/0", "j0 - running 0/0", "j0 - null 0/0", "0 unfinished"},
		},
		"stopped by an error": {
			said: []string{`query-block-jobs [{"device": "j0", "io-status": "nospace"}]`,
				`query-jobs [{"id": "j0", "type": "mirror", "status": "paused", "current-progress": 1, "total-progress": 2}]`,
				`query-block-jobs [{"device": "j0", "io-status": "nospace", "speed": 5}]`,
				`query-jobs [{"id": "j0", "type": "mirror", "status": "paused", "current-progress": 1, "total-progress": 2}]`},
			want: []string{"j0 mirror paused 1/2 nospace", "1 unfinished"},
		},
		"something else": {
			said: []string{`BLOCK_WRITE_THRESHOLD {"node-name": "n"}`, `query-version {}`},
			want: []string{"0 unfinished"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, played(t, c.said)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// played returns the lines that messages lead to, and how many jobs are
// unfinished then.
func played(t *testing.T, said []string) []string {
	t.Helper()
	var tracker Tracker
	var out bytes.Buffer
	view := NewLines(&out)
	for _, line := range said {
		changed, err := tracker.take(parsed(line))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		for _, j := range changed {
			view.Show(j)
		}
	}
	if err := view.Close(); err != nil {
		t.Error(err)
	}
	lines := strings.Split(out.String(), "\n")
	lines[len(lines)-1] = string(rune('0'+tracker.Unfinished())) + " unfinished"
	return lines
}

// parsed makes a message of its name and what it says.
func parsed(line string) message {
	name, data, _ := strings.Cut(line, " ")
	if strings.HasPrefix(name, "query-") {
		return message{ID: name, Return: []byte(data)}
	}
	return message{Event: name, Data: []byte(data)}
}

func TestTrackerGarbage(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		`query-jobs {}`, `query-jobs [{"id": 5}]`, `query-block-jobs 1`, `JOB_STATUS_CHANGE []`, `JOB_STATUS_CHANGE {"id": {}}`,
		`BLOCK_JOB_COMPLETED {"len": "x"}`, `BLOCK_JOB_READY 1`,
	} {
		var tracker Tracker
		name, _, _ := strings.Cut(line, " ")
		if _, err := tracker.take(parsed(line)); err == nil || !strings.HasPrefix(err.Error(), name+": ") {
			t.Errorf("%s: %v", line, err)
		}
	}
}
