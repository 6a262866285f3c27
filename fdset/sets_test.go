package fdset

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// open opens a fresh file in the given mode.
func open(t *testing.T, mode int) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "disk"), mode|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func add(t *testing.T, s *Sets, id *int64, mode int, opaque *string) (setID, fd int64) {
	t.Helper()
	setID, fd, err := s.Add(id, open(t, mode), opaque)
	if err != nil {
		t.Fatal(err)
	}
	return setID, fd
}

// shape prints ids and the number of descriptors in each set.
func shape(s *Sets) string {
	var parts []string
	for _, info := range s.List() {
		parts = append(parts, fmt.Sprintf("%d:%d", info.ID, len(info.FDs)))
	}
	return strings.Join(parts, " ")
}

func expectError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	var s Sets
	defer s.Close()
	add(t, &s, nil, os.O_RDONLY, nil)
	for _, id := range []int64{5, 3, 1 << 32, 0} {
		add(t, &s, &id, os.O_RDWR, nil)
	}
	if id, _ := add(t, &s, nil, os.O_RDWR, nil); id != 1 {
		t.Errorf("the second set is %d", id)
	}
	if got, want := shape(&s), "4294967296:1 5:1 3:1 1:1 0:2"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if err := s.Remove(0, nil); err != nil {
		t.Error(err)
	}
	if id, _ := add(t, &s, nil, os.O_RDWR, nil); id != 0 {
		t.Errorf("the free number was 0, not %d", id)
	}
}

func TestListTellsFDsAndOpaque(t *testing.T) {
	t.Parallel()
	var s Sets
	defer s.Close()
	_, first := add(t, &s, new(int64(7)), os.O_RDONLY, nil)
	_, second := add(t, &s, new(int64(7)), os.O_RDWR, new("rw"))
	fds := s.List()[0].FDs
	if len(fds) != 2 || fds[0].FD != first || fds[0].Opaque != nil || fds[1].FD != second || *fds[1].Opaque != "rw" {
		t.Errorf("%+v, want %d and %d", fds, first, second)
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	var s Sets
	defer s.Close()
	_, fd := add(t, &s, new(int64(3)), os.O_RDONLY, nil)
	_, _, err := s.Add(nil, nil, nil)
	expectError(t, err, "No file descriptor supplied via SCM_RIGHTS")
	file := open(t, os.O_RDONLY)
	_, _, err = s.Add(new(int64(-1)), file, nil)
	expectError(t, err, "Parameter 'fdset-id' expects a non-negative value")
	if !closed(file) {
		t.Error("a refused descriptor stays open")
	}
	expectError(t, s.Remove(99, nil), "File descriptor named 'fdset-id:99' not found")
	expectError(t, s.Remove(99, &fd), fmt.Sprintf("File descriptor named 'fdset-id:99, fd:%d' not found", fd))
	expectError(t, s.Remove(3, new(int64(-1))), "File descriptor named 'fdset-id:3, fd:-1' not found")
}

func TestOpen(t *testing.T) {
	t.Parallel()
	var s Sets
	defer s.Close()
	add(t, &s, new(int64(1)), os.O_RDONLY, nil)
	add(t, &s, new(int64(1)), os.O_RDWR, nil)
	for _, path := range []string{"/dev/fdset/1", "/dev/fdset/01", "/dev/fdset/ 1", "/dev/fdset/+1"} {
		for _, mode := range []int{os.O_RDONLY, os.O_RDWR} {
			file, handled, err := s.Open(path, mode|unix.O_CLOEXEC)
			if err != nil || !handled {
				t.Fatalf("%s: %v, %v", path, handled, err)
			}
			if flags, _ := fcntl(file, unix.F_GETFL); flags&unix.O_ACCMODE != mode {
				t.Errorf("%s: flags %#x, want mode %#x", path, flags, mode)
			}
			if flags, _ := fcntl(file, unix.F_GETFD); flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("%s: the duplicate would be inherited", path)
			}
			file.Close()
		}
	}
	for _, path := range []string{"disk", "/dev/fdset", "//dev/fdset/1", ""} {
		if _, handled, err := s.Open(path, 0); handled || err != nil {
			t.Errorf("Open(%q): %v, %v", path, handled, err)
		}
	}
}

func TestOpenMistakes(t *testing.T) {
	t.Parallel()
	var s Sets
	defer s.Close()
	add(t, &s, new(int64(1)), os.O_WRONLY, nil)
	for path, want := range map[string]string{
		"/dev/fdset/1":  "Failed to find file descriptor with matching flags=0x2",
		"/dev/fdset/99": "Failed to find fdset /dev/fdset/99",
		"/dev/fdset/0":  "Failed to find fdset /dev/fdset/0",
	} {
		_, handled, err := s.Open(path, os.O_RDWR)
		if !handled {
			t.Errorf("%s is not handled", path)
		}
		expectError(t, err, want)
	}
	for _, text := range []string{"", "abc", "-1", "1x", "0x1", "1/2", "+", "0 ", "4294967297", "99999999999999999999"} {
		_, handled, err := s.Open(prefix+text, 0)
		if !handled {
			t.Errorf("%s is not handled", text)
		}
		expectError(t, err, "Could not parse fdset "+prefix+text)
	}
	_, _, err := s.Open("/dev/fdset/1", os.O_RDWR)
	if !errors.Is(err, unix.EACCES) {
		t.Errorf("%v is not EACCES", err)
	}
}

func TestRemoveWhileInUse(t *testing.T) {
	t.Parallel()
	var s Sets
	defer s.Close()
	file := open(t, os.O_RDWR)
	id, _, err := s.Add(nil, file, nil)
	if err != nil {
		t.Fatal(err)
	}
	dup, _, err := s.Open("/dev/fdset/0", os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(id, nil); err != nil {
		t.Fatal(err)
	}
	if !closed(file) {
		t.Error("the removed descriptor is open")
	}
	if got := shape(&s); got != "0:0" {
		t.Errorf("%q while the duplicate is open", got)
	}
	if _, err := dup.WriteString("x"); err != nil {
		t.Errorf("the duplicate: %v", err)
	}
	dup.Close()
	if got := shape(&s); got != "" {
		t.Errorf("%q when the duplicate is closed", got)
	}
}

func TestRemoveOne(t *testing.T) {
	t.Parallel()
	var s Sets
	defer s.Close()
	_, fd := add(t, &s, nil, os.O_RDONLY, nil)
	add(t, &s, new(int64(0)), os.O_RDWR, nil)
	if err := s.Remove(0, &fd); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Open("/dev/fdset/0", os.O_RDONLY); err == nil {
		t.Error("the removed descriptor can be opened")
	}
	if got := shape(&s); got != "0:1" {
		t.Error(got)
	}
}

func TestNamed(t *testing.T) {
	t.Parallel()
	var n Named
	expectError(t, n.Get("x", nil), "No file descriptor supplied via SCM_RIGHTS")
	expectError(t, n.Get("1x", open(t, os.O_RDONLY)), "Parameter 'fdname' expects a name not starting with a digit")
	expectError(t, n.CloseFD("x"), "File descriptor named 'x' not found")
	first, second := open(t, os.O_RDONLY), open(t, os.O_RDONLY)
	for _, file := range []*os.File{first, second} {
		if err := n.Get("x", file); err != nil {
			t.Fatal(err)
		}
	}
	if !closed(first) || closed(second) {
		t.Error("the second descriptor of a name does not replace the first")
	}
	if file, err := n.Take("x"); file != second || err != nil {
		t.Error(file, err)
	}
	_, err := n.Take("x")
	expectError(t, err, "File descriptor named 'x' has not been found")
	if err := n.Get("", second); err != nil {
		t.Error(err)
	}
	n.Close()
	if !closed(second) {
		t.Error("Close leaves a descriptor open")
	}
}
