// Package plainfile reads files that people and programs name, without trust in what is at
// that name: a pipe that nobody writes to, or a device that never ends, is an error, and
// neither a process that hangs nor one without memory.
package plainfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Most is the size in bytes of the largest file that is read.
const Most = 64 << 20

var (
	errTooLarge   = fmt.Errorf("it has more than %d MiB", Most>>20)
	errDirectory  = errors.New("it is a directory")
	errNobody     = errors.New("it is a pipe to which nobody writes")
	errNotRegular = errors.New("it is not a regular file")
)

// Read returns what is in a file of at most [Most] bytes, or in a pipe that somebody writes
// to, as shells make them. An error is a [*fs.PathError].
func Read(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|nonBlocking, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > Most {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errTooLarge}
	}
	data, err := io.ReadAll(io.LimitReader(f, Most+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > Most:
		return nil, &fs.PathError{Op: "read", Path: path, Err: errTooLarge}
	case len(data) == 0 && info.Mode().Type() == fs.ModeNamedPipe:
		return nil, &fs.PathError{Op: "read", Path: path, Err: errNobody}
	}
	return data, nil
}

// Open opens a file of any size, or a pipe, to be read as it comes. A pipe to which nobody
// writes is empty, and a device, which may never end, is an error. An error is a
// [*fs.PathError].
func Open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|nonBlocking, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() && info.Mode().Type() != fs.ModeNamedPipe {
		err = &fs.PathError{Op: "read", Path: path, Err: errNotRegular}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Stream opens a file of any size, a pipe or a device, to be read once as it comes. A pipe to
// which nobody writes is an error when it is read, and so is a directory when it is opened.
// An error is a [*fs.PathError].
func Stream(path string) (io.ReadCloser, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|nonBlocking, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case info.IsDir():
		err = &fs.PathError{Op: "read", Path: path, Err: errDirectory}
	case info.Mode().Type() == fs.ModeNamedPipe:
		return &pipe{f: f}, nil
	default:
		return f, nil
	}
	f.Close()
	return nil, err
}

// A pipe is one that somebody has to write to.
type pipe struct {
	f       *os.File
	written bool
}

// Read implements io.Reader.
func (p *pipe) Read(b []byte) (n int, err error) {
	n, err = p.f.Read(b)
	p.written = p.written || n > 0
	if err == io.EOF && !p.written {
		err = &fs.PathError{Op: "read", Path: p.f.Name(), Err: errNobody}
	}
	return n, err
}

// Close implements io.Closer.
func (p *pipe) Close() error { return p.f.Close() }

// Check wants the files that are there to be regular ones of at most [Most] bytes, for a
// process that must not wait for what reads them. Paths that are empty are left out, as is
// what cannot be looked at: to read it is an error of its own. An error is a [*fs.PathError].
func Check(paths ...string) error {
	for _, path := range paths {
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		switch {
		case err != nil:
		case !info.Mode().IsRegular():
			return &fs.PathError{Op: "read", Path: path, Err: errNotRegular}
		case info.Size() > Most:
			return &fs.PathError{Op: "read", Path: path, Err: errTooLarge}
		}
	}
	return nil
}
