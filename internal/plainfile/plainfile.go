// Package plainfile reads files named by people and programs without trusting what is
// there: a pipe that nobody writes to, or an endless device, is an error; it neither
// hangs the process nor exhausts its memory.
package plainfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Most is the size of the largest file that is read, in bytes.
const Most = 64 << 20

var (
	errTooLarge   = fmt.Errorf("it has more than %d MiB", Most>>20)
	errDirectory  = errors.New("it is a directory")
	errSocket     = errors.New("it is a socket")
	errNobody     = errors.New("it is a pipe to which nobody writes")
	errNotRegular = errors.New("it is not a regular file")
)

// Read returns the content of a file of at most [Most] bytes, or of a pipe with a writer,
// such as shells create. An error is a [*fs.PathError].
func Read(path string) ([]byte, error) {
	return ReadIf(path, func(fs.FileInfo) error { return nil })
}

// ReadIf is [Read] of a file that judge accepts.
func ReadIf(path string, judge func(fs.FileInfo) error) ([]byte, error) {
	f, err := stream(open(path, func(fs.FileMode) error { return nil }))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err = judge(info); err == nil && info.Size() > Most {
		err = errTooLarge
	}
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
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

// Regular opens a regular file; the error says what else is there. It is a
// [*fs.PathError].
func Regular(path string) (*os.File, error) {
	return open(path, func(m fs.FileMode) error {
		if !m.IsRegular() {
			return errNotRegular
		}
		return nil
	})
}

// Open opens a file of any size, or a pipe, for reading as data arrives. A device, which
// may never end, is an error. An error is a [*fs.PathError].
func Open(path string) (*File, error) {
	return stream(open(path, func(m fs.FileMode) error {
		if !m.IsRegular() && m.Type() != fs.ModeNamedPipe {
			return errNotRegular
		}
		return nil
	}))
}

// Stream opens a file of any size, a pipe or a device, to be read once as data arrives. A
// directory is an error when it is opened. An error is a [*fs.PathError].
func Stream(path string) (*File, error) {
	return stream(open(path, func(m fs.FileMode) error {
		if m.IsDir() {
			return errDirectory
		}
		return nil
	}))
}

// open opens what is at a path if judge accepts its mode.
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

// unopened is why something was not opened: for a socket, systems report a missing
// device.
func unopened(path string, err error) error {
	if info, failed := os.Stat(path); failed == nil && info.Mode().Type() == fs.ModeSocket {
		return &fs.PathError{Op: "read", Path: path, Err: errSocket}
	}
	return err
}

// A File is read as data arrives. A pipe without a writer is an error when it is read,
// not an empty file.
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

// Check checks that existing files are regular and of at most [Most] bytes, for a process
// that must not wait for a reader of them. Empty paths are skipped, as are files that
// cannot be examined: reading them fails separately. An error is a [*fs.PathError].
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
