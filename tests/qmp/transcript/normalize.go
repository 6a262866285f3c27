package transcript

import "regexp"

// rule replaces what depends on the day, the process or the file system.
type rule struct {
	what *regexp.Regexp
	by   string
}

// rules are applied in order, to what is written and to what comes alike.
var rules = []rule{
	{regexp.MustCompile(`"seconds": \d+, "microseconds": \d+`), `"seconds": 0, "microseconds": 0`},
	{regexp.MustCompile(`^(\s+"(?:micro)?seconds"): \d+`), `$1: 0`}, // pretty=on
	{regexp.MustCompile(`#block\d+`), `#block000`},
	{regexp.MustCompile(`"(actual-size|date-sec|date-nsec|vm-clock-sec|vm-clock-nsec|thread-id|fd)": \d+`), `"$1": 0`},
	{regexp.MustCompile(`"uuid": "[0-9a-f-]{36}"`), `"uuid": ""`},
	{regexp.MustCompile(`"(master-key-)?iters": \d+`), `"${1}iters": 0`}, // LUKS measures the machine
	// Durations: none stays none.
	{regexp.MustCompile(`"(\w+_time_ns)": [1-9]\d*`), `"$1": 1`},
	{regexp.MustCompile(`\b(disk size): .*`), `$1: 0`},                                                    // qemu-img info
	{regexp.MustCompile(`ops; [0-9:.]+( sec)? \([^)]*\)`), `ops; 00.00 sec (0 B/sec and 0.0000 ops/sec)`}, // qemu-io
	{regexp.MustCompile(`/dev/(pts|loop)/?\d+`), `/dev/$1/0`},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), `127.0.0.1:0`}, // a client's port; those agreed upon are ${PORT}
	{regexp.MustCompile(`\bpid \d+( \(.*\))?`), `pid 0`},
}

// Normalize makes two lines equal that differ only in what no daemon can
// promise: the time, process numbers, generated node names' digits, durations
// and sizes that the file system decides.
func Normalize(line string) string {
	for _, r := range rules {
		line = r.what.ReplaceAllString(line, r.by)
	}
	return line
}
