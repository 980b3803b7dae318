package wire

import (
	"errors"
	"fmt"
)

// The errors of this package, wrapped with the name of the member or the offset of the
// byte concerned. Test for them with [errors.Is].
var (
	// ErrMissing says that an object lacks the requested member.
	ErrMissing = errors.New("missing")
	// ErrType says that a member is not of the requested type. This includes integers
	// outside the range of int64 and strings that are not Base64.
	ErrType = errors.New("wrong type")
	// ErrSyntax says that the input is not the JSON this package accepts.
	ErrSyntax = errors.New("syntax error")
	// ErrLimit says that the input or output exceeds a limit.
	ErrLimit = errors.New("limit exceeded")
	// ErrTooLong is the [ErrLimit] for an object that is too long.
	ErrTooLong = fmt.Errorf("object too long: %w", ErrLimit)
	// ErrTooDeep is the [ErrLimit] for an object that is nested too deep.
	ErrTooDeep = fmt.Errorf("nested too deep: %w", ErrLimit)
	// ErrTooMany is the [ErrLimit] for an array that has too many elements.
	ErrTooMany = fmt.Errorf("too many elements: %w", ErrLimit)
	// ErrTruncated says that a stream ended inside an object.
	ErrTruncated = errors.New("stream ended inside an object")
	// ErrCompression says that compressed data is damaged.
	ErrCompression = errors.New("damaged compressed data")
	// ErrUnknownAlgorithm says that the name of a compression algorithm is
	// neither GZIP nor LZW.
	ErrUnknownAlgorithm = errors.New("unknown compression algorithm")
)

// A memberError describes what is wrong with a member. Its text is built only on
// demand, since many are never read, such as for a missing optional member.
type memberError struct {
	name string
	err  error
}

func (e *memberError) Error() string { return fmt.Sprintf("wire: member %q: %v", e.name, e.err) }

func (e *memberError) Unwrap() error { return e.err }

func syntaxError(offset int, what string) error {
	return fmt.Errorf("wire: byte %d: %s: %w", offset, what, ErrSyntax)
}

func limitError(offset int, what string) error {
	return fmt.Errorf("wire: byte %d: %s: %w", offset, what, ErrLimit)
}
