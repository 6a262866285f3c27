package psk13

import "fmt"

// Alert is the description of an alert (RFC 8446, section 6).
type Alert uint8

// The alerts that are sent here, or mean something here.
const (
	CloseNotify          Alert = 0
	UnexpectedMessage    Alert = 10
	BadRecordMAC         Alert = 20
	RecordOverflow       Alert = 22
	HandshakeFailure     Alert = 40
	IllegalParameter     Alert = 47
	DecodeError          Alert = 50
	DecryptError         Alert = 51
	ProtocolVersion      Alert = 70
	InternalError        Alert = 80
	UserCanceled         Alert = 90
	MissingExtension     Alert = 109
	UnsupportedExtension Alert = 110
	UnknownIdentity      Alert = 115
)

// Error is a breach of the protocol: why the connection was given up. The
// other side was told Alert.
type Error struct {
	Alert Alert
	Text  string
}

// Error implements error.
func (e *Error) Error() string { return "tls: " + e.Text }

func fail(a Alert, format string, args ...any) error {
	return &Error{a, fmt.Sprintf(format, args...)}
}

// RemoteError is an alert that the other side sent.
type RemoteError Alert

// Error implements error.
func (e RemoteError) Error() string {
	return fmt.Sprintf("tls: the other side sent alert %d", uint8(e))
}

// Failures of a handshake that callers may want to tell apart.
var (
	// ErrNoPSK is what happens with a peer of certificates.
	ErrNoPSK = &Error{HandshakeFailure, "the other side does not use a shared key"}
	// ErrWrongKey is a server's, for a wrong key as well as an unknown name.
	ErrWrongKey = &Error{IllegalParameter, "the client does not have the key"}
	// ErrNoCommonCipher is a server's.
	ErrNoCommonCipher = &Error{HandshakeFailure, "there is no common cipher"}
)
