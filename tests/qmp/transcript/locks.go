package transcript

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lockRanges are the bytes of an image that QEMU's image locking uses:
// permissions in use from 100, permissions not shared from 200. The bytes
// around them show that nothing else is touched.
var lockRanges = [][2]int64{{98, 108}, {198, 208}}

// locks prints which of these bytes others have locked, r for a shared and w
// for an exclusive lock: one line for each file.
func (p *Player) locks(rest string) ([]Expect, error) {
	var got []Expect
	for _, name := range strings.Fields(rest) {
		held, err := heldLocks(filepath.Join(p.Dir, name))
		if err != nil {
			return nil, err
		}
		line := strings.TrimSpace(name + " " + strings.Join(held, " "))
		got = append(got, Expect{Output, main, line})
	}
	return got, nil
}

func heldLocks(path string) ([]string, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var held []string
	for _, r := range lockRanges {
		for at := r[0]; at < r[1]; at++ {
			lock := unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1}
			if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock); err != nil {
				return nil, err
			}
			switch lock.Type {
			case unix.F_RDLCK:
				held = append(held, fmt.Sprintf("r%d", at))
			case unix.F_WRLCK:
				held = append(held, fmt.Sprintf("w%d", at))
			}
		}
	}
	return held, nil
}
