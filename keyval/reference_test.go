package keyval

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// reference returns the path of the reference daemon, version 10.0.x. Without
// one the test is skipped, except in CI, which installs it.
func reference(t *testing.T) string {
	t.Helper()
	prog := "qemu-storage-daemon"
	if dir := os.Getenv("QMPBLOCK_REFERENCE"); dir != "" {
		prog = filepath.Join(dir, prog)
	}
	out, err := exec.Command(prog, "--version").Output()
	if err == nil && strings.Contains(string(out), "version 10.0.") {
		return prog
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("no qemu-storage-daemon 10.0 (QMPBLOCK_REFERENCE or PATH): %v", err)
	}
	t.Skip("no qemu-storage-daemon 10.0: set QMPBLOCK_REFERENCE to its folder")
	return ""
}

// referenceError runs the reference with one option that must make it fail
// and returns what it says about it.
func referenceError(t *testing.T, prog, option, value string) string {
	t.Helper()
	cmd := exec.Command(prog, option, value, "--blockdev", "driver=null-co")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	timer := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Run(); err == nil {
		t.Fatalf("%s %q: the reference succeeded", option, value)
	}
	_, text, _ := strings.Cut(stderr.String(), option+" "+value+": ")
	return strings.TrimSuffix(text, "\n")
}
