package secret

import (
	"errors"
	"os"
)

// mostInPipe is how many bytes a pipe holds at least: a page (Linux, pipe(7)).
const mostInPipe = 4096

// Pipe returns a pipe from which a secret can be read once. One that might not fit into it is
// a [TooLong] error.
func Pipe(secret []byte) (*os.File, error) {
	if len(secret) > mostInPipe {
		return nil, TooLong(mostInPipe)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	_, err = w.Write(secret)
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}
