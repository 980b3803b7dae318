package tpm

import (
	"cmp"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// longestStay is how long a process keeps a TPM that serves one process at a time. Then others
// get their turn, and it waits for its next one, in which it loads its keys again.
const longestStay = time.Second

// absence is how long it then stays away from a device such as /dev/tpm0, which has no queue:
// those that wait try to open it again and again, at least every longestPause.
const absence = 3 * longestPause / 2

// A Device owns the connection to a TPM. A TPM does one thing at a time, and so does a
// Device: an operation has exclusive use of the TPM from its first command to its last.
// It is safe for concurrent use. A Device that [Open] made for a socket, or for a device
// without a resource manager, such as /dev/tpm0, gives up its connection between operations,
// so that other processes get their turn.
//
// The next operation reopens a broken connection. Keys are loaded again when they
// are needed.
type Device struct {
	kernel bool          // a character device: the operating system shuts it down
	shared bool          // other processes wait while this one is connected
	turn   chan struct{} // holds one value while the TPM is free

	// The fields below belong to the goroutine that has the turn.
	closed    bool
	resources *resources
	tpm       *executor
	stay      *time.Timer // of the connection, if the TPM is shared
}

// Open opens the TPM that a tpm: URI names (see URI for the grammar), starts it if
// it is not started, and reads its capabilities. Objects and sessions that another
// process left behind are flushed, except on a TPM that the kernel's resource
// manager shares between processes; later, when the Device connects again, only those
// that are loaded.
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
		dial := func() (io.ReadWriteCloser, error) { return dialUnix(u.Unix, timeout) }
		return start(&resources{connection: connection{dial: dial, timeout: timeout}, exclusive: true}, &Device{shared: true})
	case u.TCP != "":
		dial := func() (io.ReadWriteCloser, error) { return dialNet("tcp", u.TCP, timeout) }
		return start(&resources{connection: connection{dial: dial, timeout: timeout}, exclusive: true}, &Device{shared: true})
	}
	path := cmp.Or(u.Device, defaultDevice)
	dial := func() (io.ReadWriteCloser, error) { return openDevice(path, min(timeout, maxPatience)) }
	return start(&resources{connection: connection{dial: dial, timeout: timeout}, exclusive: unmanaged(path)}, &Device{kernel: true, shared: unmanaged(path)})
}

// unmanaged reports whether a path is a device such as /dev/tpm0, which has one user
// at a time and no resource manager.
func unmanaged(path string) bool {
	number, ok := strings.CutPrefix(filepath.Base(path), "tpm")
	return ok && number != "" && strings.Trim(number, "0123456789") == ""
}

// NewDevice makes a Device that connects to its TPM with dial: now, and again after the
// connection broke. A command without a response within timeout breaks it. The connection
// is read and written like /dev/tpmrm0; if it has no SetDeadline method, its Close must
// interrupt a Read.
func NewDevice(dial func() (io.ReadWriteCloser, error), timeout time.Duration) (*Device, error) {
	return start(&resources{connection: connection{dial: dial, timeout: timeout}}, &Device{})
}

// start connects and reads the capabilities.
func start(r *resources, d *Device) (*Device, error) {
	r.connection.buffer, r.fresh = make([]byte, maxResponse), map[uint32]bool{}
	d.turn, d.resources, d.tpm = make(chan struct{}, 1), r, &executor{resources: r, guessed: map[string]bool{}}
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

// Capabilities returns what the TPM can do, as read when the Device was opened.
func (d *Device) Capabilities() Capabilities { return d.tpm.caps }

// Do gives f exclusive use of the TPM: no other command comes between those of f. Objects
// and sessions that f does not flush are flushed afterward, so f must not keep their
// handles. If the TPM has no room for them, loaded keys of stores are flushed. f must not
// call Do, or use a Store or a key on this Device. If f returns the TPM's error that a
// handle is not loaded, the TPM was reset: call Do again.
//
// The error is [keystore.ErrBusy] if others use the TPM for longer than the
// timeout, and [keystore.ErrUnavailable] if the TPM cannot be reached.
func (d *Device) Do(f func(t transport.TPM) error) error {
	if err := d.lock(); err != nil {
		return err
	}
	defer d.unlock()
	l := &link{d.resources, d.tpm}
	defer func() { l.resources = nil }()
	err := f(l)
	if gone(err) {
		d.resources.discard()
	}
	return err
}

// lock waits for the turn, and connects if necessary.
func (d *Device) lock() error {
	select {
	case <-d.turn:
	default:
		timer := time.NewTimer(d.resources.connection.timeout)
		defer timer.Stop()
		select {
		case <-d.turn:
		case <-timer.C:
			return fmt.Errorf("tpm: others used the TPM for %v: %w", d.resources.connection.timeout, keystore.ErrBusy)
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
	if d.resources.connection.isOpen() {
		return nil
	}
	err := d.resources.connect()
	if err == nil && d.shared {
		if d.stay != nil {
			d.stay.Stop() // that of a connection that broke
		}
		d.stay = time.AfterFunc(longestStay, d.makeWay)
	}
	return err
}

// makeWay disconnects after the operations that are waiting. The next one connects again.
func (d *Device) makeWay() {
	<-d.turn
	d.leave()
	if d.kernel {
		time.Sleep(absence)
	}
	d.turn <- struct{}{}
}

// unlock ends an operation and passes on the turn.
func (d *Device) unlock() {
	d.resources.endOperation()
	d.tpm.null = nil
	d.turn <- struct{}{}
}

// release flushes keys that are no longer needed. It does not connect: if the connection
// broke, they are already gone.
func (d *Device) release(all ...*object) {
	<-d.turn
	defer d.unlock()
	for _, o := range all {
		d.resources.drop(o)
	}
}

// Close disconnects from the TPM. Later operations return [keystore.ErrClosed].
func (d *Device) Close() error {
	<-d.turn
	defer func() { d.turn <- struct{}{} }()
	d.closed = true
	d.tpm.hierarchies.forget()
	d.leave()
	return nil
}

// leave flushes what is loaded, sends TPM2_Shutdown, so that a loss of power does not raise
// the dictionary attack counter, and disconnects. For a character device the operating system
// sends the TPM2_Shutdown.
func (d *Device) leave() {
	if !d.resources.connection.isOpen() {
		return
	}
	d.resources.discard()
	if !d.kernel && d.resources.connection.isOpen() {
		d.resources.send(packet(ccShutdown, []byte{0, 0})) // TPM_SU_CLEAR
	}
	d.resources.lose()
}
