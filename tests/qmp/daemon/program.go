// Package daemon finds and runs the programs that the conversations under
// tests/ are held with: the reference (QEMU's own storage daemon and system
// emulator, version 10.0) and ours.
//
// A [Program] says how a daemon is started, a [Process] is one that runs. The
// same tests drive both, so nothing here knows which of the two it has.
package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// ReferenceEnv names the environment variable with the folder that holds the
// reference's programs (qemu-storage-daemon, qemu-img, qemu-system-x86_64 …).
const ReferenceEnv = "QMPBLOCK_REFERENCE"

// referenceVersion is what the reference's --version must say: texts and
// member sets differ between QEMU's releases.
var referenceVersion = regexp.MustCompile(`version 10\.0\.\d+`)

// TB is what this package needs of a *testing.T. It stands for it so that
// programs can use the rest without the testing package.
type TB interface {
	Helper()
	Skip(args ...any)
	Fatal(args ...any)
}

// Program is a daemon that can be started.
type Program struct {
	// Name is for messages: "reference", "ours" or a path.
	Name string
	// Storage starts the storage daemon; options follow these words.
	Storage []string
	// System starts the system emulator, nil if the program has none.
	System []string
}

// Reference returns the reference's programs. A test without them is skipped,
// or fails where CI=true promises that they are installed.
func Reference(tb TB) *Program {
	tb.Helper()
	p, err := FindReference()
	if err != nil {
		Missing(tb, err.Error())
	}
	return p
}

// FindReference looks for the reference where QMPBLOCK_REFERENCE points, then
// along PATH.
func FindReference() (*Program, error) {
	dir := os.Getenv(ReferenceEnv)
	storage := filepath.Join(dir, "qemu-storage-daemon")
	if dir == "" {
		found, err := exec.LookPath("qemu-storage-daemon")
		if err != nil {
			return nil, fmt.Errorf("no reference daemon: %s is not set and qemu-storage-daemon is not in PATH", ReferenceEnv)
		}
		storage, dir = found, filepath.Dir(found)
	}
	out, err := exec.Command(storage, "--version").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("no reference daemon: %s --version: %v", storage, err)
	}
	if !referenceVersion.Match(out) {
		return nil, fmt.Errorf("no reference daemon: %s is not version 10.0: %s", storage, bytes.TrimSpace(out))
	}
	p := &Program{Name: "reference", Storage: []string{storage}}
	if system := filepath.Join(dir, "qemu-system-x86_64"); executable(system) {
		p.System = []string{system}
	}
	return p, nil
}

// Ours returns the daemon of this repository. In is a folder that outlives
// the test's use of it and gets the built program; root is the module's. Where the
// race detector looks at the tests it looks at the program as well.
func Ours(root, in string) (*Program, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	bin := filepath.Join(in, "qmpblock")
	build := exec.CommandContext(ctx, "go", "build", fmt.Sprintf("-race=%t", Race), "-o", bin, "./cmd/qmpblock")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build ./cmd/qmpblock: %v\n%s", err, out)
	}
	// Under this name it behaves, and speaks of itself, as the reference does.
	link := filepath.Join(in, "qemu-storage-daemon")
	if err := os.Symlink(bin, link); err != nil {
		return nil, err
	}
	return &Program{Name: "ours", Storage: []string{link}, System: []string{bin, "system"}}, nil
}

// At returns the daemon at a path. One named qmpblock is started with its
// subcommands, any other as QEMU's storage daemon, with a system emulator
// beside it if there is one.
func At(path string) *Program {
	if filepath.Base(path) == "qmpblock" {
		return &Program{Name: path, Storage: []string{path, "storage-daemon"}, System: []string{path, "system"}}
	}
	p := &Program{Name: path, Storage: []string{path}}
	if system := filepath.Join(filepath.Dir(path), "qemu-system-x86_64"); executable(system) {
		p.System = []string{system}
	}
	return p
}

// Root returns the folder of the module that the test runs in.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("no go.mod in this folder or above")
}

// Missing skips a test that lacks something of the machine, but fails it
// where CI=true promises that everything is there.
func Missing(tb TB, why string) {
	tb.Helper()
	if os.Getenv("CI") == "true" {
		tb.Fatal(why)
	}
	tb.Skip(why)
}

// Argv0 is the name under which a program speaks of itself, taken from a
// mistake it is made to complain of: a wrapper script's name is not it.
func Argv0(command []string) string {
	probe := exec.Command(command[0], append(command[1:len(command):len(command)], "--no-such-option")...)
	out, _ := probe.CombinedOutput() // it must fail
	name, _, found := strings.Cut(string(out), ": ")
	if !found {
		return command[0]
	}
	return name
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
