// Package qerr holds errors as QMP reports them: a class, a text for people,
// and sometimes a hint that only a command line prints.
//
// An error is made where the fact is known, with the text the client will
// read, and travels unchanged to the monitor. Code in between may prepend
// context with [Prepend], as in "Could not open backing file: …".
package qerr

import (
	"errors"
	"fmt"
	"syscall"
)

// Class is the machine-readable part of a QMP error (qmp-spec, "Error").
type Class string

// The classes a client can meet. All but GenericError exist for old clients
// which took decisions by class.
const (
	GenericError    Class = "GenericError"
	CommandNotFound Class = "CommandNotFound"
	DeviceNotActive Class = "DeviceNotActive"
	DeviceNotFound  Class = "DeviceNotFound"
	KVMMissingCap   Class = "KVMMissingCap"
)

// Error is one failure, complete with the text a client reads.
type Error struct {
	Class Class
	// Desc is the human-readable text, without a full stop unless the
	// reference prints one.
	Desc string
	// Hint is further advice for the command line; QMP does not carry it.
	Hint string
	// Errno is the system's error behind this one, 0 if there is none.
	Errno syscall.Errno
}

// Error returns the text a client reads.
func (e *Error) Error() string { return e.Desc }

// Unwrap gives errors.Is access to the system's error.
func (e *Error) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// New makes a GenericError.
func New(format string, args ...any) *Error {
	return &Error{Class: GenericError, Desc: sprintf(format, args)}
}

// WithClass makes an error of the given class.
func WithClass(c Class, format string, args ...any) *Error {
	return &Error{Class: c, Desc: sprintf(format, args)}
}

// WithErrno makes a GenericError which ends in the system's own words:
// "Could not open 'x': No such file or directory".
func WithErrno(errno syscall.Errno, format string, args ...any) *Error {
	return &Error{
		Class: GenericError,
		Desc:  sprintf(format, args) + ": " + Strerror(errno),
		Errno: errno,
	}
}

// WithErrnoOnly makes a GenericError which remembers the system's error for
// code that asks with errors.Is, but does not print its text.
func WithErrnoOnly(errno syscall.Errno, format string, args ...any) *Error {
	return &Error{Class: GenericError, Desc: sprintf(format, args), Errno: errno}
}

// WithHint returns a copy of e that carries advice for the command line.
func (e *Error) WithHint(hint string) *Error {
	c := *e
	c.Hint = hint
	return &c
}

// Prepend returns err with text before its own, its class kept.
func Prepend(err error, format string, args ...any) *Error {
	c := *From(err)
	c.Desc = sprintf(format, args) + c.Desc
	return &c
}

// From turns any error into one a client can be told. Errors of this package
// pass unchanged; a bare errno gets the system's text.
func From(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return &Error{Class: GenericError, Desc: Strerror(errno), Errno: errno}
	}
	return &Error{Class: GenericError, Desc: err.Error()}
}

// ErrnoOf returns the system's error behind err, or fallback if there is none.
func ErrnoOf(err error, fallback syscall.Errno) syscall.Errno {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return fallback
}

func sprintf(format string, args []any) string {
	if len(args) == 0 {
		return format
	}
	return fmt.Sprintf(format, args...)
}
