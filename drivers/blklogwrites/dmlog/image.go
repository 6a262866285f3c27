package dmlog

import (
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/qerr"
)

// chunk is how much data is held in memory, in bytes.
const chunk = 1 << 20

// image is what a log is replayed onto.
type image struct {
	file *os.File
	size int64
	buf  []byte
	zero []byte
	// backdated says that the file's time was set back for a check.
	backdated bool
}

// openImage opens or makes an image. Replaying a log onto itself would go on
// for ever, or eat what is still to be read.
func openImage(path string, log *os.File) (*image, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, openError(path, err)
	}
	m := &image{file: f, buf: make([]byte, chunk), zero: make([]byte, chunk)}
	if err := m.inspect(log); err != nil {
		f.Close()
		return nil, err
	}
	return m, nil
}

func (m *image) inspect(log *os.File) error {
	mine, err := m.file.Stat()
	if err != nil {
		return err
	}
	others, err := log.Stat()
	if err != nil {
		return err
	}
	if os.SameFile(mine, others) {
		return qerr.New("%s is the log itself", m.file.Name())
	}
	m.size, err = m.file.Seek(0, io.SeekEnd)
	return err
}

func (m *image) close() error {
	err := m.file.Sync()
	if closeErr := m.file.Close(); err == nil {
		err = closeErr
	}
	if err == nil && m.backdated {
		err = os.Chtimes(m.file.Name(), time.Time{}, time.Now())
	}
	return err
}

// apply does to the image what the entry did to the disk.
func (m *image) apply(r *Reader, rec *Record) error {
	if rec.Flags&Discard != 0 {
		// What is behind the end is empty already.
		return m.clear(rec.Offset, min(rec.Length, m.size-rec.Offset))
	}
	data, at := r.Data(rec), rec.Offset
	for {
		n, err := io.ReadFull(data, m.buf)
		if n > 0 {
			if err := m.write(at, m.buf[:n]); err != nil {
				return err
			}
			at += int64(n)
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			if at != rec.Offset+rec.Length {
				return io.ErrUnexpectedEOF
			}
			return nil
		default:
			return err
		}
	}
}

// write writes data. Zeroes become holes: a log of large zero writes is
// sparse, and so is the image then.
func (m *image) write(at int64, b []byte) error {
	end := at + int64(len(b))
	if string(b) != string(m.zero[:len(b)]) {
		m.size = max(m.size, end)
		_, err := m.file.WriteAt(b, at)
		return err
	}
	if end > m.size {
		if err := m.file.Truncate(end); err != nil {
			return err
		}
		// The part from the old end on is a hole now.
		end, m.size = max(m.size, at), end
	}
	return m.clear(at, end-at)
}

// clear makes an area read as zeroes.
func (m *image) clear(at, n int64) error {
	if n <= 0 {
		return nil
	}
	err := unix.Fallocate(int(m.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, n)
	if err == nil {
		return nil
	}
	for n > 0 {
		piece := min(n, chunk)
		if _, err := m.file.WriteAt(m.zero[:piece], at); err != nil {
			return err
		}
		at, n = at+piece, n-piece
	}
	return nil
}
