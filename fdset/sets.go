package fdset

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/qmpblock/qmpblock/qerr"
)

const prefix = "/dev/fdset/"

// Sets are the file descriptor sets of an instance. The zero value is empty
// and ready for use, by several goroutines.
type Sets struct {
	mu   sync.Mutex
	sets []*set // ascending by id
}

type set struct {
	id  int64
	fds []entry
	// dups are files that Open returned. One that its owner has closed is
	// found and dropped at the next look.
	dups []*os.File
}

type entry struct {
	fd     int64
	file   *os.File
	opaque *string
}

// Info describes a set as query-fdsets shows it.
type Info struct {
	ID  int64
	FDs []FDInfo // in the order of adding
}

// FDInfo describes one descriptor of a set.
type FDInfo struct {
	FD     int64
	Opaque *string // what the client said about it, nil for nothing
}

// errNoFD is the answer when a command wants a descriptor and the client sent
// none with it.
func errNoFD() error { return qerr.New("No file descriptor supplied via SCM_RIGHTS") }

// Add puts file into a set and owns it from then on, also when it fails. A nil
// id stands for a new set, which gets the lowest free number; a set that does
// not exist is made. A nil file is an error: none was received. fd is the
// descriptor's number in this process.
func (s *Sets) Add(id *int64, file *os.File, opaque *string) (setID, fd int64, err error) {
	if file == nil {
		return 0, 0, errNoFD()
	}
	if id != nil && *id < 0 {
		file.Close()
		return 0, 0, qerr.New("Parameter 'fdset-id' expects a non-negative value")
	}
	if fd, err = number(file); err != nil {
		file.Close()
		return 0, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reap()
	if id == nil {
		id = new(s.free())
	}
	at := s.make(*id)
	at.fds = append(at.fds, entry{fd, file, opaque})
	return at.id, fd, nil
}

// Remove closes one descriptor of a set, or all when fd is nil.
func (s *Sets) Remove(id int64, fd *int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reap()
	at := s.find(id)
	if fd == nil {
		if at == nil {
			return qerr.New("File descriptor named 'fdset-id:%d' not found", id)
		}
		at.closeAll()
		s.reap()
		return nil
	}
	if at != nil {
		for i, e := range at.fds {
			if e.fd == *fd {
				e.file.Close()
				at.fds = slices.Delete(at.fds, i, i+1)
				s.reap()
				return nil
			}
		}
	}
	return qerr.New("File descriptor named 'fdset-id:%d, fd:%d' not found", id, *fd)
}

// List returns all sets, the highest number first.
func (s *Sets) List() []Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reap()
	infos := make([]Info, 0, len(s.sets))
	for _, at := range slices.Backward(s.sets) {
		info := Info{ID: at.id, FDs: make([]FDInfo, len(at.fds))}
		for i, e := range at.fds {
			info.FDs[i] = FDInfo{e.fd, e.opaque}
		}
		infos = append(infos, info)
	}
	return infos
}

// Open opens path if it names a set; handled is false for other names. Of
// flags only the access mode counts: a descriptor opened in the same mode is
// duplicated. The caller closes the duplicate with its Close method.
func (s *Sets) Open(path string, flags int) (file *os.File, handled bool, err error) {
	text, ok := strings.CutPrefix(path, prefix)
	if !ok {
		return nil, false, nil
	}
	id, ok := parseID(text)
	if !ok {
		return nil, true, failed(unix.EINVAL, "Could not parse fdset %s", path)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reap()
	at := s.find(id)
	if at == nil {
		return nil, true, failed(unix.ENOENT, "Failed to find fdset %s", path)
	}
	file, err = at.dup(path, flags&unix.O_ACCMODE)
	return file, true, err
}

// Close closes everything but the duplicates, which belong to others.
func (s *Sets) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range s.sets {
		at.closeAll()
	}
	s.sets = nil
}

// parseID reads the number in a file name: decimal, below 2^31, with white
// space and a sign in front of it (observed).
func parseID(text string) (id int64, ok bool) {
	text = strings.TrimLeft(text, " \t\n\v\f\r")
	id, err := strconv.ParseInt(text, 10, 32)
	return id, err == nil && id >= 0
}

func failed(errno syscall.Errno, format string, args ...any) error {
	return &qerr.Error{Class: qerr.GenericError, Desc: fmt.Sprintf(format, args...), Errno: errno}
}

// reap drops duplicates that were closed, then sets with nothing in them.
func (s *Sets) reap() {
	s.sets = slices.DeleteFunc(s.sets, func(at *set) bool {
		at.dups = slices.DeleteFunc(at.dups, closed)
		return len(at.fds) == 0 && len(at.dups) == 0
	})
}

func (s *Sets) search(id int64) (int, bool) {
	return slices.BinarySearchFunc(s.sets, id, func(at *set, id int64) int { return cmp.Compare(at.id, id) })
}

func (s *Sets) find(id int64) *set {
	if i, ok := s.search(id); ok {
		return s.sets[i]
	}
	return nil
}

// make finds a set or adds it.
func (s *Sets) make(id int64) *set {
	i, ok := s.search(id)
	if !ok {
		s.sets = slices.Insert(s.sets, i, &set{id: id})
	}
	return s.sets[i]
}

// free returns the lowest number that no set has.
func (s *Sets) free() int64 {
	for i, at := range s.sets {
		if at.id != int64(i) {
			return int64(i)
		}
	}
	return int64(len(s.sets))
}

func (at *set) closeAll() {
	for _, e := range at.fds {
		e.file.Close()
	}
	at.fds = nil
}

func (at *set) dup(path string, mode int) (*os.File, error) {
	for _, e := range at.fds {
		flags, err := fcntl(e.file, unix.F_GETFL)
		if err != nil {
			return nil, err
		}
		if flags&unix.O_ACCMODE != mode {
			continue
		}
		fd, err := fcntl(e.file, unix.F_DUPFD_CLOEXEC)
		if err != nil {
			return nil, err
		}
		file := os.NewFile(uintptr(fd), path)
		at.dups = append(at.dups, file)
		return file, nil
	}
	return nil, failed(unix.EACCES, "Failed to find file descriptor with matching flags=0x%x", mode)
}

func fcntl(file *os.File, cmd int) (result int, err error) {
	err = control(file, func(fd uintptr) error {
		result, err = unix.FcntlInt(fd, cmd, 0)
		return err
	})
	return result, err
}

func number(file *os.File) (n int64, err error) {
	err = control(file, func(fd uintptr) error {
		n = int64(fd)
		return nil
	})
	return n, err
}

// closed tells whether the owner of file has closed it.
func closed(file *os.File) bool {
	_, err := number(file)
	return err != nil
}

// control runs f with the descriptor, which stays open meanwhile.
func control(file *os.File, f func(fd uintptr) error) error {
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := conn.Control(func(fd uintptr) { inner = f(fd) }); err != nil {
		return err
	}
	return inner
}
