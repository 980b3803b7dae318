//go:build unix

package tpm

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A file is the character device of a TPM. It accepts a whole command in one write, and
// returns a whole response in one read.
type file struct {
	fd       int
	deadline time.Time
}

// openDevice opens a character device, and nothing else: writing a command into a regular
// file would destroy it. It waits for a device with one user at a time, such as
// /dev/tpm0.
func openDevice(path string, patience time.Duration) (io.ReadWriteCloser, error) {
	f, err := whenFree(unix.EBUSY, patience, func() (*file, error) { return openFile(path) })
	if err != nil {
		return nil, err
	}
	var info unix.Stat_t
	if err := unix.Fstat(f.fd, &info); err != nil || info.Mode&unix.S_IFMT != unix.S_IFCHR {
		f.Close()
		return nil, fmt.Errorf("%s is not a character device, such as %s: nothing was written", path, defaultDevice)
	}
	return f, nil
}

// openFile opens a file without O_NONBLOCK and without the runtime's poller, which would
// treat a read before the response as the end of the file.
func openFile(path string) (*file, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch err {
	case nil:
		return &file{fd: fd}, nil
	case unix.ENOENT:
		return nil, fmt.Errorf("%s: %w: check that this machine has a TPM, and that it is enabled in the firmware", path, err)
	case unix.EACCES, unix.EPERM:
		return nil, fmt.Errorf("%s: %w: add this user to the group tss, or run as another user", path, err)
	case unix.EBUSY:
		return nil, fmt.Errorf("%s: %w: another process has it; use /dev/tpmrm0", path, err)
	case unix.EISDIR, unix.ENOTDIR, unix.ENXIO, unix.ENODEV:
		return nil, fmt.Errorf("%s: %w: name the device of a TPM, such as %s", path, err, defaultDevice)
	}
	return nil, &os.PathError{Op: "open", Path: path, Err: err}
}

func (f *file) SetDeadline(t time.Time) error {
	f.deadline = t
	return nil
}

func (f *file) Write(b []byte) (int, error) {
	for {
		n, err := unix.Write(f.fd, b)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// Read waits for the response, but not beyond the deadline.
func (f *file) Read(b []byte) (int, error) {
	for {
		fds := []unix.PollFd{{Fd: int32(f.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(max(0, time.Until(f.deadline).Milliseconds())))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, err
		case n == 0:
			return 0, os.ErrDeadlineExceeded
		}
		n, err = unix.Read(f.fd, b)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

func (f *file) Close() error { return unix.Close(f.fd) }
