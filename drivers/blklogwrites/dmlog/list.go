package dmlog

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/qmpblock/qmpblock/qerr"
)

// List prints the entries of a log, one a line: its number, where on the disk
// and how many bytes, and what was done. If the log is damaged, what comes
// before is printed still.
func List(w io.Writer, path string) error {
	r, f, err := open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "%d entries, sectors of %d bytes\n", r.super.Entries, r.super.SectorSize)
	err = list(out, r)
	if flushErr := out.Flush(); err == nil {
		err = flushErr
	}
	return err
}

func list(w io.Writer, r *Reader) error {
	for {
		rec, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		place := "                     -            -"
		if rec.Length > 0 {
			place = fmt.Sprintf("%22d %12d", rec.Offset, rec.Length)
		}
		if _, err := fmt.Fprintf(w, "%8d %s  %s\n", rec.Number, place, rec.describe()); err != nil {
			return err
		}
	}
}

// describe says what was done: "write,fua", "flush", `mark "x"`.
func (r *Record) describe() string {
	flags := r.Flags.String()
	switch {
	case r.Flags&Mark != 0:
		return flags + " " + strconv.Quote(r.Name)
	case r.Flags&Discard != 0 || r.Length == 0 && flags != "":
		return flags
	case r.Length == 0:
		return "nothing"
	case flags == "":
		return "write"
	}
	return "write," + flags
}

// open opens a log's file.
func open(path string) (*Reader, *os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, openError(path, err)
	}
	// A block device's size is where its end is.
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		var r *Reader
		if r, err = NewReader(f, size); err == nil {
			return r, f, nil
		}
	}
	f.Close()
	return nil, nil, qerr.Prepend(err, "%s: ", path)
}

func openError(path string, err error) error {
	return qerr.Prepend(err, "Could not open '%s': ", path)
}
