package reference

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/qmpblock/qmpblock/qjson"
	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// statesTable is what the reference does: KIND, SITUATION, VERBS and the answer.
const statesTable = "testdata/states.txt"

// varies stands in the table where the reference does one thing or another.
const varies = "(it varies)"

// answers are the lines of the table, by all that is in front of the answer.
type answers map[string]string

// player plays what can be done to one kind of job in one situation.
type player struct {
	program   *daemon.Program
	images    string
	kind      *kind
	situation *situation
	got       answers

	s *side // nil: nothing is played

	// first is the graph without the job; graph and state are what was seen last.
	first, graph []string
	nodes        []string
	state        string
}

// play plays verbs in a situation: each that is refused leaves all as it was, and
// with each that is not the daemon ends.
func play(program *daemon.Program, images string, k *kind, s *situation) (answers, error) {
	p := &player{program: program, images: images, kind: k, situation: s, got: answers{}}
	defer p.drop()
	err := p.explore(nil, p.depth())
	return p.got, err
}

func (p *player) drop() {
	if p.s != nil {
		p.s.close()
		p.s = nil
	}
}

// note keeps an answer, or that the reference died of the question. Ours must not.
func (p *player) note(path []verb, last, answer string, err error) error {
	if err != nil && p.program.Name != "reference" {
		return fmt.Errorf("%s: %w\n%s", p.key(path, last), err, p.s.stacks())
	}
	if err != nil {
		p.drop()
		answer = dies
	}
	if key := p.key(path, last); p.got[key] == "" {
		p.got[key] = answer
	}
	return nil
}

func (p *player) key(path []verb, last string) string {
	var names []string
	for _, v := range path {
		names = append(names, v.name)
	}
	if len(path) == 0 && last == "" {
		last = "begin"
	}
	if last != "" {
		names = append(names, last)
	}
	return prefix(p.kind, p.situation) + strings.Join(names, ", ")
}

// explore plays all verbs behind others, and the end.
func (p *player) explore(path []verb, depth int) error {
	if err := p.reach(path); err != nil {
		return err
	}
	for _, v := range verbs {
		if p.skips(v, len(path) > 0, depth) {
			continue
		}
		if err := p.reach(path); err != nil || p.s == nil || !p.there() {
			return err
		}
		behind := append(slices.Clip(path), v)
		answer, err := p.ask(v.request)
		if err := p.note(behind, "", answer, err); err != nil {
			return err
		}
		if p.s == nil || strings.HasPrefix(answer, `"`) {
			continue
		}
		if depth > 1 && v.part == lead && p.there() {
			err = p.explore(behind, depth-1)
		} else if v.part != alias {
			err = p.end(behind)
		}
		p.drop()
		if err != nil {
			return err
		}
	}
	return p.end(path)
}

// depth is how many verbs follow each other.
func (p *player) depth() int {
	if *allStates {
		return p.situation.depth + 1
	}
	return p.situation.depth
}

// skips tells whether a verb is not tried.
func (p *player) skips(v verb, behind bool, depth int) bool {
	switch v.part {
	case lead:
		if depth == 0 && !behind {
			return v.name == "speed 0" || !strings.Contains(p.state, " paused ")
		}
		return v.name == "speed 0" && p.kind.endless && strings.Contains(p.state, " running ") // there would be no rest
	case follow:
		return depth == 0
	case alias:
		return depth == 0 || behind
	}
	return true
}

// there tells whether there is the job still.
func (p *player) there() bool { return strings.Contains(p.state, " j ") }

// reach starts a daemon and does all that is in front of the next verb.
func (p *player) reach(path []verb) error {
	if p.s != nil {
		return nil
	}
	answer, err := p.begin()
	if err := p.note(nil, "", answer, err); err != nil || p.s == nil {
		return err
	}
	for n, v := range path {
		answer, err := p.ask(v.request)
		if err := p.note(path[:n+1], "", answer, err); err != nil || p.s == nil {
			return err
		}
	}
	return nil
}

// begin starts a daemon and brings a job into the situation.
func (p *player) begin() (string, error) {
	var err error
	if p.s, err = openChain(p.program, p.images, map[string]string{p.situation.node: p.situation.fault}); err != nil {
		return "", err
	}
	for _, name := range []string{"r", "u"} {
		if err := p.s.openTarget(name, p.situation); err != nil {
			return "", err
		}
	}
	if p.kind.slow {
		slow := do("", "blockdev-add", `"driver": "null-co", "node-name": "slow", "size": 1048576, "latency-ns": 150000000`)
		if answer, err := p.s.answer(slow.request); err != nil || answer != "ok" {
			return answer, err
		}
	}
	if p.kind.dirties {
		for _, offset := range []uint64{0, 640 << 10} {
			x := transfer{export: "n4", op: "write", offset: offset, bytes: 65536, fill: 9}
			if result := x.do(filepath.Join(p.s.dir, "n.sock")); !strings.HasSuffix(result, "<nil>") {
				return "", fmt.Errorf("%s", result)
			}
		}
	}
	if p.first, err = p.draw(); err != nil {
		return "", err
	}
	p.graph, p.state = p.first, ""
	answer, err := p.ask(p.kind.start(p.situation))
	for _, name := range p.situation.then {
		if err != nil {
			break
		}
		var more string
		v := verbs[slices.IndexFunc(verbs, func(v verb) bool { return v.name == name })]
		more, err = p.ask(v.request)
		answer += "; " + name + ": " + more
	}
	return answer, err
}

// start is the request that begins a job.
func (k *kind) start(s *situation) string {
	arguments := `"job-id": "j", ` + k.arguments
	if s.extra != "" {
		arguments += ", " + s.extra
	}
	if s.group == "" {
		return do("", k.command, arguments).request
	}
	mode := "grouped"
	if s.alone {
		mode = "individual"
	}
	return do("", "transaction", fmt.Sprintf(`"actions": [{"type": %q, "data": {%s}}, {"type": "blockdev-backup", "data": {"job-id": "other", %s}}], `+
		`"properties": {"completion-mode": %q}`, k.command, arguments, s.group, mode)).request
}

// openTarget opens a raw file to copy to, in which requests may fail.
func (s *side) openTarget(name string, at *situation) error {
	file := fmt.Sprintf(`"driver": "file", "node-name": "f%s", "filename": "%s.raw"`, name, name)
	arguments := fmt.Sprintf(`"driver": "raw", "node-name": %q, "file": {%s}`, name, file)
	if at.node == name {
		arguments = fmt.Sprintf(`"driver": "blkdebug", "node-name": %q, "image": {%s}, "inject-error": [{%s}]`, name, file, at.fault)
	}
	answer, err := s.answer(do("", "blockdev-add", arguments).request)
	if err == nil && answer != "ok" {
		err = fmt.Errorf("%s: %s", arguments, answer)
	}
	return err
}

// ask is what comes for a request until the jobs rest, and how they stand then, if
// that is another way than before.
func (p *player) ask(text string) (string, error) {
	if p.situation.watched {
		lines, err := p.s.exchange(request(text))
		p.state = " j "
		return p.terse(lines), err
	}
	lines, err := p.s.do(step{command: text, late: strings.Contains(text, "block-job-change")})
	if err != nil {
		return "", err
	}
	words, before := p.terse(lines), p.graph
	if p.graph, err = p.draw(); err != nil {
		return "", err
	}
	if !slices.Equal(before, p.graph) && slices.Equal(p.graph, p.first) {
		return words + " restored", nil
	}
	return strings.Join(append([]string{words}, changed(before, p.graph)...), " "), nil
}

func (p *player) terse(lines []string) string {
	var words []string
	var state string
	for _, line := range lines {
		line = strings.TrimSpace(line)
		v, err := qjson.Parse([]byte(line))
		switch {
		case line == "":
		case err != nil:
			words = append(words, line)
		case v.Get("id").Exists():
			state += " " + terse(v.Get("return"))
		default:
			words = append(words, terseMessage(v))
		}
	}
	if state != "" && state != p.state {
		p.state = state
		words = append(words, strings.TrimRight("="+state, " "))
	}
	return strings.Join(words, " ")
}

// end ends the daemon, and tells how the graph had changed.
func (p *player) end(path []verb) error {
	if err := p.reach(path); err != nil || p.s == nil {
		return err
	}
	words, err := p.last()
	if err := p.note(path, "quit", strings.Join(words, " "), err); err != nil {
		return err
	}
	p.drop()
	return nil
}

// last is what comes when the daemon ends.
func (p *player) last() (words []string, err error) {
	var lines []string
	if p.situation.watched {
		if lines, err = p.s.settle(false); err != nil {
			return nil, err
		}
		words = append(words, p.terse(lines))
	}
	lines, status, err := p.s.quitJobs()
	return append(words, p.terse(lines), fmt.Sprintf("exit status %d", status)), err
}

// terseMessage is a message without what is the same everywhere.
func terseMessage(v qjson.Value) string {
	switch {
	case v.Get("event").Is("JOB_STATUS_CHANGE"):
		return short(v.Get("data").Get("id").Str() + ":" + v.Get("data").Get("status").Str())
	case v.Get("event").Exists():
		return strings.TrimPrefix(v.Get("event").Str(), "BLOCK_JOB_") + terse(v.Get("data"))
	case v.Get("return").Exists():
		return "ok"
	}
	return fmt.Sprintf("%q", refusal.ReplaceAllString(v.Get("error").Get("desc").Str(), "$1 cannot $2"))
}

// refusal is what most verbs are refused with.
var refusal = regexp.MustCompile(`^Job 'j' in state '(.*)' cannot accept command verb '(.*)'$`)

// terse is a value without the names of members, mostly.
func terse(v qjson.Value) string {
	var words []string
	switch v.Kind() {
	case qjson.Object:
		for key, member := range v.Members() {
			words = append(words, terseMember(key, member))
		}
		return "{" + strings.Join(words, " ") + "}"
	case qjson.Array:
		for one := range v.Elems() {
			words = append(words, terse(one))
		}
		return strings.Join(words, " ")
	}
	return strings.Trim(string(qjson.AppendValue(nil, v)), `"`)
}

// short leaves out the name of the job that is played with.
func short(s string) string { return strings.TrimPrefix(s, "j:") }

// terseMember is a member of which the value says enough, mostly.
func terseMember(key string, v qjson.Value) string {
	switch {
	case v.Kind() != qjson.Bool:
		return strings.ReplaceAll(terse(v), " ", "_")
	case v.Bool():
		return key
	}
	return "-" + key
}

// draw looks at the graph: an edge or node a line.
func (p *player) draw() (lines []string, err error) {
	// The reference dies of that as long as the job holds a filter with nothing below.
	if p.kind.command != "block-stream" || !strings.Contains(p.state, " concluded ") {
		if p.nodes, err = p.s.nodes(); err != nil {
			return nil, err
		}
	}
	edges, err := p.s.edges()
	lines = append(edges, p.nodes...)
	slices.Sort(lines)
	return lines, err
}

// nodes are the nodes' names, drivers and backing files.
func (s *side) nodes() (lines []string, err error) {
	list, err := s.returned("query-named-block-nodes")
	for n := range list.Elems() {
		backing := n.Get("image").Get("backing-filename").Str()
		lines = append(lines, fmt.Sprintf("%s:%s:%s:%v", named(n.Get("node-name").Str()), n.Get("drv").Str(), backing, n.Get("ro").Bool()))
	}
	return lines, err
}

// edges are those of the graph, with permissions.
func (s *side) edges() (lines []string, err error) {
	graph, err := s.returned("x-debug-query-block-graph")
	names := map[int64]string{}
	for n := range graph.Get("nodes").Elems() {
		names[n.Get("id").Int()] = named(n.Get("name").Str())
	}
	for e := range graph.Get("edges").Elems() {
		lines = append(lines, fmt.Sprintf("%s-%s->%s:%s/%s", names[e.Get("parent").Int()], strings.ReplaceAll(e.Get("name").Str(), " ", "-"),
			names[e.Get("child").Int()], permissions(e.Get("perm")), permissions(e.Get("shared-perm"))))
	}
	return lines, err
}

// returned is the result of a query.
func (s *side) returned(query string) (v qjson.Value, err error) {
	got, err := s.exchange(request(fmt.Sprintf(`{"execute": %q}`, query)))
	if err == nil {
		v, err = qjson.Parse([]byte(strings.TrimSpace(strings.Join(got, ""))))
	}
	return v.Get("return"), err
}

func named(name string) string { return unnamed.ReplaceAllString(name, "#") }

// permissions are the initials of permissions: resize, write-unchanged as u, write
// and consistent-read.
func permissions(list qjson.Value) (s string) {
	for p := range list.Elems() {
		if p.Is("write-unchanged") {
			s += "u"
		} else {
			s += p.Str()[:1]
		}
	}
	return s
}

// changed are the lines that are only in one of two drawings.
func changed(before, after []string) (lines []string) {
	count := map[string]int{}
	for _, line := range after {
		count[line]++
	}
	for _, line := range before {
		count[line]--
	}
	for _, line := range slices.Sorted(maps.Keys(count)) {
		for range count[line] {
			lines = append(lines, "+"+line)
		}
		for range -count[line] {
			lines = append(lines, "-"+line)
		}
	}
	return lines
}

// prefix is what the answers of a kind in a situation begin with.
func prefix(k *kind, s *situation) string { return k.name + " | " + s.name + " | " }

// of are the answers about a kind in a situation.
func (a answers) of(k *kind, s *situation) answers {
	some := answers{}
	for key, answer := range a {
		if strings.HasPrefix(key, prefix(k, s)) {
			some[key] = answer
		}
	}
	return some
}

// differ are the answers that came and are others, "" where none came.
func (a answers) differ(came answers) answers {
	wrong := answers{}
	for key, want := range a {
		if want != dies && want != varies && came[key] != want {
			wrong[key] = came[key]
		}
	}
	for key, answer := range came {
		if a[key] == "" {
			wrong[key] = answer
		}
	}
	return wrong
}

// narrow keeps of what was wrong before what is wrong again.
func (a answers) narrow(again answers) answers {
	if a == nil {
		return again
	}
	maps.DeleteFunc(a, func(key, _ string) bool { _, still := again[key]; return !still })
	return a
}

func readAnswers(text string) answers {
	a, section := answers{}, ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if title, ok := strings.CutPrefix(line, "## "); ok {
			section = title
		} else if path, answer, ok := strings.Cut(line, " | "); ok {
			a[section+" | "+path] = answer
		}
	}
	return a
}

// recordStates asks the reference again and again. What is not run stays as it is in the table.
func recordStates(t *testing.T) {
	t.Helper()
	program := daemon.Reference(t)
	images := makeChain(t)
	before, err := os.ReadFile(statesTable)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	table := readAnswers(string(before))
	t.Run("all", func(t *testing.T) {
		for n := range kinds {
			for _, s := range situationsOf(&kinds[n]) {
				t.Run(kinds[n].name+"/"+s.name, func(t *testing.T) {
					t.Parallel()
					all, err := record(program, images, &kinds[n], &s)
					if err != nil {
						t.Fatal(err)
					}
					mu.Lock()
					defer mu.Unlock()
					maps.DeleteFunc(table, func(key, _ string) bool { return strings.HasPrefix(key, prefix(&kinds[n], &s)) })
					maps.Copy(table, all)
				})
			}
		}
	})
	var b strings.Builder
	b.WriteString("# What the reference does with jobs; see states_test.go.\n")
	section := ""
	for _, key := range slices.Sorted(maps.Keys(table.current())) {
		end := strings.LastIndex(key, " | ")
		if key[:end] != section {
			section = key[:end]
			b.WriteString("\n## " + section + "\n")
		}
		fmt.Fprintf(&b, "%s | %s\n", key[end+3:], table[key])
	}
	if err := os.WriteFile(filepath.FromSlash(statesTable), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// record plays a situation several times.
func record(program *daemon.Program, images string, k *kind, s *situation) (answers, error) {
	all := answers{}
	for range runs {
		came, err := play(program, images, k, s)
		if err != nil {
			return nil, err
		}
		all.merge(came)
	}
	return all, nil
}

// current are the answers about situations that there are.
func (a answers) current() answers {
	some := answers{}
	for n := range kinds {
		for _, s := range situationsOf(&kinds[n]) {
			maps.Copy(some, a.of(&kinds[n], &s))
		}
	}
	return some
}

// merge adds answers. What is not the same again varies.
func (a answers) merge(again answers) {
	first := len(a) == 0
	for key, answer := range again {
		if !first && a[key] != answer {
			answer = varies
		}
		a[key] = answer
	}
	for key := range a {
		if again[key] == "" {
			a[key] = varies
		}
	}
}
