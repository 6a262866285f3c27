package drivers_test

import (
	"testing"

	"github.com/qmpblock/qmpblock/drivers"
)

func TestAll(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, d := range drivers.All() {
		if d.Name == "" || d.Open == nil || seen[d.Name] {
			t.Errorf("driver %q cannot be opened, or is there twice", d.Name)
		}
		seen[d.Name] = true
	}
}
