package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

const maxResponse = 8192 // TPM_PT_MAX_RESPONSE_SIZE is 4096 on existing TPMs

// maxPatience is how long to wait for a TPM with one user at a time, if no command takes
// longer: a resource manager may keep it permanently.
const maxPatience = 15 * time.Second

// longestPause is the longest between two tries to open a TPM that another program has.
const longestPause = 100 * time.Millisecond

// whenFree opens a TPM, and retries while another program has it, which the system
// reports by the error taken.
func whenFree[T any](taken syscall.Errno, patience time.Duration, open func() (T, error)) (T, error) {
	end := time.Now().Add(patience)
	for wait := time.Millisecond; ; wait = min(2*wait, longestPause) {
		opened, err := open()
		if !errors.Is(err, taken) || time.Now().Add(wait).After(end) {
			return opened, err
		}
		time.Sleep(wait)
	}
}

// dialUnix connects to a socket, and waits while its connection queue is full, in which
// case Linux refuses immediately.
func dialUnix(path string, patience time.Duration) (io.ReadWriteCloser, error) {
	return whenFree(syscall.EAGAIN, patience, func() (io.ReadWriteCloser, error) { return dialNet("unix", path, patience) })
}

func dialNet(network, address string, timeout time.Duration) (io.ReadWriteCloser, error) {
	c, err := net.DialTimeout(network, address, timeout)
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, absent(err))
	}
	return c, nil
}

// A connection carries the bytes of commands to a TPM and of responses back, without
// knowing what they mean. The TCG calls this layer a TCTI.
type connection struct {
	dial    func() (io.ReadWriteCloser, error)
	timeout time.Duration      // for one command
	rw      io.ReadWriteCloser // nil: must be opened
	buffer  []byte             // room for one response
}

// open connects unless it is connected.
func (c *connection) open() error {
	if c.rw != nil {
		return nil
	}
	rw, err := c.dial()
	if err != nil {
		return fmt.Errorf("tpm: no TPM: %w: %w", keystore.ErrUnavailable, err)
	}
	c.rw = rw
	return nil
}

func (c *connection) isOpen() bool { return c.rw != nil }

func (c *connection) close() {
	if c.rw != nil {
		c.rw.Close()
		c.rw = nil
	}
}

// exchange writes one command and reads its response, which is valid until the next
// exchange. After an error the connection must not be used again: a late response would
// be mistaken for the next command's.
func (c *connection) exchange(command []byte) ([]byte, error) {
	if c.rw == nil {
		return nil, net.ErrClosed
	}
	if rw, ok := c.rw.(interface{ SetDeadline(time.Time) error }); ok {
		if err := rw.SetDeadline(time.Now().Add(c.timeout)); err != nil {
			return nil, err
		}
	} else {
		rw := c.rw
		defer time.AfterFunc(c.timeout, func() { rw.Close() }).Stop()
	}
	if _, err := c.rw.Write(command); err != nil {
		return nil, err
	}
	return c.read()
}

// read reads a response, whose header contains its length.
func (c *connection) read() ([]byte, error) {
	for n := 0; ; {
		m, err := c.rw.Read(c.buffer[n:])
		n += m
		if n >= 10 {
			size := int(binary.BigEndian.Uint32(c.buffer[2:]))
			if size < 10 || size > maxResponse || n > size {
				return nil, fmt.Errorf("the answer says it has %d bytes", size)
			}
			if n == size {
				return withoutLayer(c.buffer[:n]), nil
			}
		}
		if err == nil && m == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
	}
}

// withoutLayer removes the mark of Linux from a code with which it answers for the TPM, such as
// TPM_RC_COMMAND_CODE for a command that the TPM lacks (TCG TSS 2.0 Overview, TSS2_RESMGR_TPM_RC_LAYER).
func withoutLayer(response []byte) []byte {
	const layer = 11
	if code(response)>>16 == layer {
		response[6], response[7] = 0, 0
	}
	return response
}
