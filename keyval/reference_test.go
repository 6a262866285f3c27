package keyval

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/qmpblock/qmpblock/tests/qmp/daemon"
)

// reference returns the path of the reference daemon, version 10.0.x. Without
// one the test is skipped, except in CI, which installs it.
func reference(t *testing.T) string {
	t.Helper()
	return daemon.Reference(t).Storage[0]
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
