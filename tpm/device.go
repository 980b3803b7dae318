package tpm

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A Device is the one owner of the connection to a TPM. A TPM does one thing
// at a time, so a Device does too: an operation has the TPM for itself from
// its first command to its last. It is safe for use by many goroutines.
//
// A connection that breaks is opened again by the next operation. What was
// loaded is loaded again where it is needed.
type Device struct {
	kernel bool          // the operating system switches it off
	turn   chan struct{} // holds one value while nobody has the TPM

	// What follows belongs to whoever has the turn.
	closed    bool
	resources *resources
	tpm       *executor
}

// Open opens the TPM that a tpm: URI names, starts it if nobody has, and asks
// what it can do. See URI for the grammar. What another process left loaded is
// flushed, but for a TPM that the resource manager of the kernel shares out.
func Open(uri string) (*Device, error) {
	u, err := ParseURI(uri)
	if err != nil {
		return nil, err
	}
	return u.open()
}

func (u *URI) open() (*Device, error) {
	timeout := cmp.Or(u.Timeout, defaultTimeout)
	switch {
	case u.Unix != "":
		dial := func() (io.ReadWriteCloser, error) { return net.Dial("unix", u.Unix) }
		return start(&resources{connection: connection{dial: dial, timeout: timeout}, exclusive: true}, false)
	case u.TCP != "":
		dial := func() (io.ReadWriteCloser, error) { return net.DialTimeout("tcp", u.TCP, timeout) }
		return start(&resources{connection: connection{dial: dial, timeout: timeout}, exclusive: true}, false)
	}
	path := cmp.Or(u.Device, defaultDevice)
	dial := func() (io.ReadWriteCloser, error) { return openFile(path) }
	return start(&resources{connection: connection{dial: dial, timeout: timeout}, exclusive: unmanaged(path)}, true)
}

// unmanaged reports whether a path is /dev/tpm0 or one of its kind, which has one
// user at a time and no resource manager.
func unmanaged(path string) bool {
	number, ok := strings.CutPrefix(filepath.Base(path), "tpm")
	return ok && number != "" && strings.Trim(number, "0123456789") == ""
}

// NewDevice makes a Device of a function that connects to a TPM: once now, and
// again when the connection breaks. A command that has no answer within timeout
// breaks it. A connection is read and written as /dev/tpmrm0 is, and where it
// has no SetDeadline method its Close must end a Read.
func NewDevice(dial func() (io.ReadWriteCloser, error), timeout time.Duration) (*Device, error) {
	return start(&resources{connection: connection{dial: dial, timeout: timeout}}, false)
}

// start connects, and asks what the TPM can do.
func start(r *resources, kernel bool) (*Device, error) {
	r.connection.buffer, r.fresh = make([]byte, maxResponse), map[uint32]bool{}
	d := &Device{kernel: kernel, turn: make(chan struct{}, 1), resources: r, tpm: &executor{resources: r}}
	d.turn <- struct{}{}
	err := d.Do(func(t transport.TPM) (err error) {
		d.tpm.caps, err = capabilities(t)
		return err
	})
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Capabilities tells what the TPM can do.
func (d *Device) Capabilities() Capabilities { return d.tpm.caps }

// Do lets f have the TPM: no other command comes between those of f. What f
// loads or starts and does not flush is flushed afterwards, so nothing leaks
// whatever happens; a key or session must not be kept beyond f. Where the TPM
// has no room for what f loads, keys of stores make place. f must not call Do,
// or a Store or a key on this Device. Where f returns the error of the TPM that a
// handle is not loaded, it was reset: call Do again.
//
// A Device that others use for longer than its time-out is [keystore.ErrBusy]; a
// TPM that cannot be reached is [keystore.ErrUnavailable].
func (d *Device) Do(f func(t transport.TPM) error) error {
	if err := d.lock(); err != nil {
		return err
	}
	defer d.unlock()
	l := &link{d.resources}
	defer func() { l.resources = nil }()
	err := f(l)
	if gone(err) {
		d.resources.discard()
	}
	return err
}

// lock waits for the turn, and for the connection.
func (d *Device) lock() error {
	select {
	case <-d.turn:
	default:
		timer := time.NewTimer(d.resources.connection.timeout)
		defer timer.Stop()
		select {
		case <-d.turn:
		case <-timer.C:
			return fmt.Errorf("tpm: others had the TPM for %v: %w", d.resources.connection.timeout, keystore.ErrBusy)
		}
	}
	err := d.connect()
	if err != nil {
		d.turn <- struct{}{}
	}
	return err
}

func (d *Device) connect() error {
	if d.closed {
		return fmt.Errorf("tpm: TPM: %w", keystore.ErrClosed)
	}
	return d.resources.connect()
}

// unlock tidies up and lets the next one have the TPM.
func (d *Device) unlock() {
	d.resources.endOperation()
	d.turn <- struct{}{}
}

// release takes keys out of the TPM that nobody needs any more. It connects to
// nothing: a TPM whose connection broke has them no more.
func (d *Device) release(all ...*object) {
	<-d.turn
	defer d.unlock()
	for _, o := range all {
		d.resources.drop(o)
	}
}

// Close flushes what is loaded and tells the TPM that power may go, so that its
// dictionary attack counter does not rise. (A device of the operating system
// hears that from the operating system.) Operations after it return
// [keystore.ErrClosed].
func (d *Device) Close() error {
	<-d.turn
	defer func() { d.turn <- struct{}{} }()
	d.closed = true
	if !d.resources.connection.isOpen() {
		return nil
	}
	d.resources.discard()
	if !d.kernel && d.resources.connection.isOpen() {
		d.resources.send(packet(ccShutdown, []byte{0, 0})) // TPM_SU_CLEAR
	}
	d.resources.lose()
	return nil
}
