package secret

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/internal/plainfile"
)

// ReadFile reads a file of at most limit bytes that only its owner may read. The caller
// must close the result. A longer file is a [TooLong] error.
func ReadFile(path string, limit int) (*lockedmem.Buffer, error) {
	b, err := readPrivate(path, limit)
	if err == nil && b.Len() > limit {
		b.Close()
		return nil, TooLong(limit)
	}
	return b, err
}

// readPrivate checks the open file, so that it cannot be swapped after the check.
func readPrivate(path string, limit int) (*lockedmem.Buffer, error) {
	f, err := plainfile.Regular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("others may read it (mode %04o): run chmod 600 on it", info.Mode().Perm())
	}
	return readAll(f, limit)
}

func readDescriptor(number string, limit int) (*lockedmem.Buffer, error) {
	n, err := strconv.ParseUint(number, 10, 31)
	if err != nil {
		return nil, err
	}
	own, err := takeOver(int(n))
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(own), "fd:"+number)
	if f == nil {
		return nil, errors.New("it is not open")
	}
	defer f.Close()
	return readAll(f, limit)
}

// readAll reads one byte more than the limit, if there is one.
func readAll(r io.Reader, limit int) (*lockedmem.Buffer, error) {
	room := lockedmem.New(limit + 1)
	defer room.Close()
	n, err := io.ReadFull(r, room.Bytes())
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return lockedmem.Copy(room.Bytes()[:n]), nil
}
