package main

import (
	"bufio"
	"io"
	"os"
	"strings"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"

	"github.com/qmpblock/qmpblock/keyval"
	"github.com/qmpblock/qmpblock/qerr"
	"github.com/qmpblock/qmpblock/trace"
)

// logging is where messages and trace lines go: to a person in colour when
// stderr is a terminal, else as JSON, a line each.
type logging struct {
	log    zerolog.Logger
	notice func(line string) // tells the user, see program.notice
	tracer *trace.Tracer
	files  []io.Closer
}

func newLogging(stderr *os.File, level string, notice func(string)) (*logging, error) {
	l, err := zerolog.ParseLevel(level)
	if err != nil {
		return nil, qerr.New("'%s' is not a log level", level)
	}
	var w io.Writer = stderr
	if isatty.IsTerminal(stderr.Fd()) {
		w = zerolog.ConsoleWriter{Out: stderr}
	}
	log := zerolog.New(w).With().Timestamp().Logger()
	// Trace points have switches of their own and do not depend on the level.
	return &logging{log: log.Level(l), notice: notice, tracer: trace.New(log.Level(zerolog.TraceLevel))}, nil
}

// enable follows one --trace option: [enable=]PATTERN, events=FILE with a
// pattern on each line, file=FILE for the lines.
func (l *logging) enable(option string) error {
	opts, err := traceOptions.Parse(option)
	if err != nil {
		return err
	}
	if path := opts.Str("file"); path != "" {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			return qerr.Prepend(err, "Could not open trace file '%s': ", path)
		}
		l.files = append(l.files, f)
		l.tracer.SetOutput(zerolog.New(f).With().Timestamp().Logger())
	}
	if path := opts.Str("events"); path != "" {
		if err := l.enableFrom(path); err != nil {
			return err
		}
	}
	if pattern := opts.Str("enable"); pattern != "" {
		l.enablePattern(pattern)
	}
	return nil
}

func (l *logging) enablePattern(pattern string) {
	if err := l.tracer.Enable(pattern); err != nil {
		l.notice("warning: " + err.Error())
	}
}

var traceOptions = &keyval.OptsList{
	Implied: "enable",
	Options: []keyval.OptDesc{{Name: "enable"}, {Name: "events"}, {Name: "file"}},
}

func (l *logging) enableFrom(path string) error {
	f, err := os.Open(path)
	if err != nil {
		// The reference's message has no blank here.
		return traceFileError{path, err}
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		pattern := strings.TrimSpace(lines.Text())
		if pattern == "" || pattern[0] == '#' {
			continue
		}
		l.enablePattern(pattern)
	}
	return lines.Err()
}

func (l *logging) close() {
	for _, f := range l.files {
		f.Close()
	}
}

// traceFileError is a file of patterns that cannot be read. Its message stands
// alone, without the option.
type traceFileError struct {
	path string
	err  error
}

func (e traceFileError) Error() string { return e.path + ": " + qerr.From(e.err).Desc }
