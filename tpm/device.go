package tpm

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2"
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
	dial    func() (io.ReadWriteCloser, error)
	timeout time.Duration
	kernel  bool // the operating system switches it off
	raw     bool // nobody else has the TPM, and nobody tidies up after us

	turn chan struct{} // holds one value while nobody has the TPM

	// What follows belongs to whoever has the turn.
	conn     io.ReadWriteCloser // nil: to be opened
	closed   bool
	answers  []byte // room for an answer
	caps     Capabilities
	made     map[uint32]bool // objects and sessions of the operation under way
	resident []*object       // loaded keys, least recently used first
	sessions []*session      // likewise
	roots    []*object       // storage keys
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
		return (&Device{dial: func() (io.ReadWriteCloser, error) { return net.Dial("unix", u.Unix) }, timeout: timeout, raw: true}).start()
	case u.TCP != "":
		return (&Device{dial: func() (io.ReadWriteCloser, error) { return net.DialTimeout("tcp", u.TCP, timeout) }, timeout: timeout, raw: true}).start()
	}
	path := u.Device
	if path == "" {
		path = defaultDevice
	}
	dial := func() (io.ReadWriteCloser, error) { return openFile(path) }
	return (&Device{dial: dial, timeout: timeout, kernel: true, raw: unmanaged(path)}).start()
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
	return (&Device{dial: dial, timeout: timeout}).start()
}

func (d *Device) start() (*Device, error) {
	d.turn, d.answers, d.made = make(chan struct{}, 1), make([]byte, maxAnswer), map[uint32]bool{}
	d.turn <- struct{}{}
	if err := d.Do(func(t transport.TPM) (err error) { d.caps, err = capabilities(t); return err }); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Capabilities tells what the TPM can do.
func (d *Device) Capabilities() Capabilities { return d.caps }

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
	l := &link{d}
	defer func() { l.Device = nil }()
	err := f(l)
	if gone(err) {
		d.discard()
	}
	return err
}

// discard takes everything out of the TPM. After a reset there is nothing, and
// each of the commands fails.
func (d *Device) discard() {
	for handle := range d.made {
		d.flush(handle)
	}
	for _, o := range d.resident {
		if o.persistent == 0 {
			d.flush(o.handle)
		}
	}
	for _, s := range d.sessions {
		d.flush(s.handle)
	}
	d.forget()
	clear(d.made)
}

// lock waits for the turn, and for the connection.
func (d *Device) lock() error {
	select {
	case <-d.turn:
	default:
		timer := time.NewTimer(d.timeout)
		defer timer.Stop()
		select {
		case <-d.turn:
		case <-timer.C:
			return fmt.Errorf("tpm: others had the TPM for %v: %w", d.timeout, keystore.ErrBusy)
		}
	}
	if err := d.connect(); err != nil {
		d.turn <- struct{}{}
		return err
	}
	return nil
}

// unlock tidies up and lets the next one have the TPM.
func (d *Device) unlock() {
	for handle := range d.made {
		d.flush(handle)
	}
	clear(d.made)
	clear(d.answers) // what was decrypted is there in clear
	for _, o := range d.resident {
		o.pinned = false
	}
	d.turn <- struct{}{}
}

// release takes keys out of the TPM that nobody needs any more. It connects to
// nothing: a TPM whose connection broke has them no more.
func (d *Device) release(all ...*object) {
	<-d.turn
	defer d.unlock()
	for _, o := range all {
		d.drop(o)
	}
}

func (d *Device) connect() error {
	if d.closed {
		return fmt.Errorf("tpm: TPM: %w", keystore.ErrClosed)
	}
	if d.conn != nil {
		return nil
	}
	conn, err := d.dial()
	if err != nil {
		return fmt.Errorf("tpm: no TPM: %w: %w", keystore.ErrUnavailable, err)
	}
	d.conn = conn
	if d.raw {
		return d.tidy()
	}
	return nil
}

// tidy flushes what a process left in the TPM that was killed: after a few of
// them there is no room for a session any more, until a reset. What the TPM does
// not answer here, the operation under way hears too.
func (d *Device) tidy() error {
	for _, first := range []uint32{0x80000000, 0x02000000, 0x03000000} { // objects, sessions, saved sessions
		items, err := capability(&link{d}, tpm2.TPMCapHandles, first, 254, 4)
		if d.conn == nil {
			return err
		}
		for _, item := range items {
			d.flush(binary.BigEndian.Uint32(item))
		}
	}
	return nil
}

// lose gives a broken connection up. Everything that was loaded is forgotten.
func (d *Device) lose() {
	d.forget()
	clear(d.made)
	if d.conn != nil {
		d.conn.Close()
		d.conn = nil
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
	if d.conn == nil {
		return nil
	}
	d.discard()
	if !d.kernel && d.conn != nil {
		d.send(packet(ccShutdown, []byte{0, 0})) // TPM_SU_CLEAR
	}
	d.lose()
	return nil
}
