//go:build race

package daemon

// Race tells whether the tests, and the program that [Ours] builds, are looked at
// by the race detector.
const Race = true
