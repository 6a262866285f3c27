package jsonrpc

import (
	"strings"

	"github.com/rs/zerolog"
)

// libraryLog takes what the library has to say, such as an answer that a
// client sent though nothing was asked.
type libraryLog struct{ zerolog.Logger }

func (l libraryLog) Printf(format string, args ...any) {
	l.Debug().Msgf(strings.TrimSuffix(format, "\n"), args...)
}
