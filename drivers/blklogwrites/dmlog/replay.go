package dmlog

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/qmpblock/qmpblock/qerr"
)

// Progress is what a replay did.
type Progress struct {
	// Entries were replayed.
	Entries uint64
	// Checks were run.
	Checks uint64
}

// Replay does to an image what the log says was done to the disk. until is
// how far to go: the number of entries to replay, or the name of a mark; ""
// means all. The image is made if there is none; on an existing one the log's
// writes go over what is there. Discards become holes, or zeroes where the
// file system has no holes. The image is durable when Replay returns.
func Replay(ctx context.Context, log, image, until string) (Progress, error) {
	return replay(ctx, log, image, until, nil)
}

// ReplayChecking is Replay, and runs a command wherever the disk was told to
// be durable: at each entry with the flag flush, before its own data, and
// behind each with the flag fua. The command goes through the shell with the
// image's path as $1 and in the variable IMAGE, the number of entries replayed
// in ENTRIES; what it prints goes to out. It must only look: an image that
// changes under its hands ends the replay, for what follows would no longer be
// what the disk held. The first command that fails ends the replay too, with a
// [*CheckError], and leaves the image for inspection.
func ReplayChecking(ctx context.Context, log, image, until, command string, out io.Writer) (Progress, error) {
	return replay(ctx, log, image, until, func(p Progress) error {
		if err := runCheck(ctx, command, image, p.Entries, out); err != nil {
			return &CheckError{p.Entries, err}
		}
		return nil
	})
}

// CheckError is a state of the disk that failed its check.
type CheckError struct {
	// Entries is how many had been replayed: give it as until to get there
	// again.
	Entries uint64
	// Err is how the command ended.
	Err error
}

func (e *CheckError) Error() string {
	return fmt.Sprintf("check failed after %d entries: %v", e.Entries, e.Err)
}

// Unwrap is how the command ended.
func (e *CheckError) Unwrap() error { return e.Err }

func replay(ctx context.Context, log, path, until string, check func(Progress) error) (p Progress, err error) {
	r, f, err := open(log)
	if err != nil {
		return p, err
	}
	defer f.Close()
	count, err := resolve(log, until, r.super.Entries)
	if err != nil {
		return p, err
	}
	img, err := openImage(path, f)
	if err != nil {
		return p, err
	}
	defer func() {
		if closeErr := img.close(); err == nil {
			err = closeErr
		}
	}()
	for err == nil && p.Entries < count {
		if err = ctx.Err(); err == nil {
			err = step(r, img, &p, check)
		}
	}
	return p, err
}

// step replays one entry.
func step(r *Reader, img *image, p *Progress, check func(Progress) error) error {
	rec, err := r.Next()
	if err != nil {
		return err
	}
	if rec.Flags&Flush != 0 && check != nil {
		if err := img.checked(p, check); err != nil {
			return err
		}
	}
	if err := img.apply(r, rec); err != nil {
		return qerr.Prepend(err, "replaying log entry %d: ", rec.Number)
	}
	p.Entries++
	if rec.Flags&FUA != 0 && check != nil {
		return img.checked(p, check)
	}
	return nil
}

// resolve turns "until" into a number of entries. Digits are a number; for
// marks the log is read through once, without its data.
func resolve(log, until string, entries uint64) (uint64, error) {
	if until == "" {
		return entries, nil
	}
	if n, err := strconv.ParseUint(until, 10, 64); err == nil {
		if n > entries {
			return 0, qerr.New("%s: there are only %d log entries", log, entries)
		}
		return n, nil
	}
	r, f, err := open(log)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for {
		rec, err := r.Next()
		if err == io.EOF {
			return 0, qerr.New("%s: there is no mark '%s'", log, until)
		}
		if err != nil {
			return 0, err
		}
		if rec.Flags&Mark != 0 && rec.Name == until {
			return rec.Number + 1, nil
		}
	}
}

func runCheck(ctx context.Context, command, image string, entries uint64, out io.Writer) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command, "sh", image)
	cmd.Env = append(os.Environ(), "IMAGE="+image, "ENTRIES="+strconv.FormatUint(entries, 10))
	cmd.Stdout, cmd.Stderr = out, out
	return cmd.Run()
}

// checked runs a check and sees to it that the image stays as it is. The
// file's time is set back meanwhile: any write shows, however soon it comes.
func (m *image) checked(p *Progress, check func(Progress) error) error {
	const longAgo = 24 * time.Hour
	if err := m.file.Sync(); err != nil {
		return err
	}
	if err := os.Chtimes(m.file.Name(), time.Time{}, time.Now().Add(-longAgo)); err != nil {
		return err
	}
	m.backdated = true
	before, err := m.file.Stat()
	if err != nil {
		return err
	}
	p.Checks++
	if err := check(*p); err != nil {
		return err
	}
	after, err := m.file.Stat()
	if err != nil {
		return err
	}
	if !after.ModTime().Equal(before.ModTime()) || after.Size() != before.Size() {
		return qerr.New("the check changed %s; it must work on a copy", m.file.Name())
	}
	return nil
}
