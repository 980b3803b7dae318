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
	errSocket     = errors.New("it is a socket")
	errNobody     = errors.New("it is a pipe to which nobody writes")
	errNotRegular = errors.New("it is not a regular file")
)

// Read returns what is in a file of at most [Most] bytes, or in a pipe that somebody writes
// to, as shells make them. An error is a [*fs.PathError].
func Read(path string) ([]byte, error) {
	f, err := stream(open(path, func(fs.FileMode) error { return nil }))
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
	if err == nil && len(data) > Most {
		err = &fs.PathError{Op: "read", Path: path, Err: errTooLarge}
	}
	if err != nil {
		return nil, err
	}
	return data, nil
}

// Regular opens a regular file, and tells of what else is there. An error is a
// [*fs.PathError].
func Regular(path string) (*os.File, error) {
	return open(path, func(m fs.FileMode) error {
		if !m.IsRegular() {
			return errNotRegular
		}
		return nil
	})
}

// Open opens a file of any size, or a pipe, to be read as it comes. A device, which may never
// end, is an error. An error is a [*fs.PathError].
func Open(path string) (*File, error) {
	return stream(open(path, func(m fs.FileMode) error {
		if !m.IsRegular() && m.Type() != fs.ModeNamedPipe {
			return errNotRegular
		}
		return nil
	}))
}

// Stream opens a file of any size, a pipe or a device, to be read once as it comes. A
// directory is an error when it is opened. An error is a [*fs.PathError].
func Stream(path string) (*File, error) {
	return stream(open(path, func(m fs.FileMode) error {
		if m.IsDir() {
			return errDirectory
		}
		return nil
	}))
}

// open opens what is at a path if its mode is right.
func open(path string, judge func(fs.FileMode) error) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|nonBlocking, 0)
	if err != nil {
		return nil, unopened(path, err)
	}
	info, err := f.Stat()
	if err == nil {
		err = judge(info.Mode())
	}
	if err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return f, nil
}

// unopened is why something was not opened: of a socket, systems say that there is no device.
func unopened(path string, err error) error {
	if info, failed := os.Stat(path); failed == nil && info.Mode().Type() == fs.ModeSocket {
		return &fs.PathError{Op: "read", Path: path, Err: errSocket}
	}
	return err
}

// A File is read as it comes. A pipe to which nobody writes is an error when it is read, and
// no empty file.
type File struct {
	f       *os.File
	pipe    bool
	written bool
}

func stream(f *os.File, err error) (*File, error) {
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &File{f: f, pipe: info.Mode().Type() == fs.ModeNamedPipe}, nil
}

// Read implements io.Reader.
func (f *File) Read(b []byte) (n int, err error) {
	n, err = f.f.Read(b)
	f.written = f.written || n > 0
	if err == io.EOF && f.pipe && !f.written {
		err = &fs.PathError{Op: "read", Path: f.f.Name(), Err: errNobody}
	}
	return n, err
}

// Stat is that of [os.File].
func (f *File) Stat() (fs.FileInfo, error) { return f.f.Stat() }

// Close implements io.Closer.
func (f *File) Close() error { return f.f.Close() }

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
