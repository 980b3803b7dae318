package proof

import (
	"bytes"
	"compress/gzip"
	"io"
)

// The sizes in bytes of the event log of a machine's start (TCG PC Client Platform
// Firmware Profile), uncompressed and compressed for a message.
const (
	MaxEventLog  = 1 << 20
	MaxPackedLog = 128 << 10
)

// PackLog compresses an event log (RFC 1952). A log that is too long is [ErrEventLog].
func PackLog(log []byte) ([]byte, error) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(log) // to memory: never fails
	z.Close()
	if len(log) > MaxEventLog || packed.Len() > MaxPackedLog {
		return nil, Fail(ErrEventLog, "it has %d bytes, compressed %d; at most %d and %d are allowed", len(log), packed.Len(), MaxEventLog, MaxPackedLog)
	}
	return packed.Bytes(), nil
}

// UnpackLog is the inverse of PackLog.
func UnpackLog(packed []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, Fail(ErrEventLog, "%w", err)
	}
	log, err := io.ReadAll(io.LimitReader(z, MaxEventLog+1))
	if err != nil {
		return nil, Fail(ErrEventLog, "%w", err)
	}
	if len(log) > MaxEventLog {
		return nil, Fail(ErrEventLog, "it has more than %d bytes", MaxEventLog)
	}
	return log, nil
}
