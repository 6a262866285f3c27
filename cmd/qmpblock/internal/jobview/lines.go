package jobview

import (
	"fmt"
	"io"
)

// Lines shows each change as a line of words: the job's id, type and status,
// what is done of what there is to do, and the note, if there is one, to the
// end of the line.
type Lines struct {
	out io.Writer
	err error
}

// NewLines returns a view that prints.
func NewLines(out io.Writer) *Lines { return &Lines{out: out} }

// Show prints a line.
func (l *Lines) Show(j Job) {
	note := j.Note()
	if note != "" {
		note = " " + note
	}
	_, err := fmt.Fprintf(l.out, "%s %s %s %d/%d%s\n", j.ID, dash(j.Type), j.Status, j.Done, j.Total, note)
	if l.err == nil {
		l.err = err
	}
}

// Close returns the first error there was.
func (l *Lines) Close() error { return l.err }
