// Package control is what each QMP command does.
//
// An [Instance] is one daemon: a block graph, character devices, objects,
// devices, monitors. Nothing is shared between instances, so a process can
// hold as many as it likes and a test makes one in a line:
//
//	i := control.New(control.Config{})
//
// The commands are thin: they turn typed arguments (package schema) into calls
// of the rooms below, and what comes back into typed replies. There is one
// file for each QAPI module. Which commands exist depends on the
// [Personality]; a client can only see those that have a handler.
//
// Commands run one at a time, whatever the number of monitors. Those that
// touch the graph hold the main context's lock; see withlock.go.
package control
