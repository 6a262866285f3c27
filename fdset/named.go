package fdset

import (
	"os"
	"sync"

	"github.com/qmpblock/qmpblock/qerr"
)

// Named are the descriptors that a client of one monitor gave names to
// (getfd). The zero value is empty and ready for use, by several goroutines.
type Named struct {
	mu    sync.Mutex
	files map[string]*os.File
}

// Get keeps file under a name and owns it from then on, also when it fails. A
// file that had the name is closed. A nil file is an error: none was received.
// A name must not start with a digit, since that is how numbers look.
func (n *Named) Get(name string, file *os.File) error {
	if file == nil {
		return errNoFD()
	}
	if name != "" && name[0] >= '0' && name[0] <= '9' {
		file.Close()
		return qerr.New("Parameter 'fdname' expects a name not starting with a digit")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if old := n.files[name]; old != nil {
		old.Close()
	}
	if n.files == nil {
		n.files = map[string]*os.File{}
	}
	n.files[name] = file
	return nil
}

// CloseFD closes the file of that name and forgets it.
func (n *Named) CloseFD(name string) error {
	file := n.remove(name)
	if file == nil {
		return qerr.New("File descriptor named '%s' not found", name)
	}
	return file.Close()
}

// Take hands out the file of that name, which then has no name any more.
func (n *Named) Take(name string) (*os.File, error) {
	if file := n.remove(name); file != nil {
		return file, nil
	}
	return nil, qerr.New("File descriptor named '%s' has not been found", name)
}

// Close closes all files.
func (n *Named) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, file := range n.files {
		file.Close()
	}
	n.files = nil
}

func (n *Named) remove(name string) *os.File {
	n.mu.Lock()
	defer n.mu.Unlock()
	file := n.files[name]
	delete(n.files, name)
	return file
}
