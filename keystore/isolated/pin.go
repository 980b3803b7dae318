package isolated

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/internal/secret"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// A PINTaker is a store in the child that can log in with another PIN from now on.
type PINTaker interface {
	// TakePIN reads the PIN from a descriptor, to its end, and closes that.
	TakePIN(fd int) error
}

// A pin is the PIN for the children that follow.
type pin struct {
	mu    sync.Mutex
	now   *lockedmem.Buffer // or nil
	other chan struct{}     // closed when another one takes its place
}

func newPIN(b *lockedmem.Buffer) *pin { return &pin{now: b, other: make(chan struct{})} }

// take replaces the PIN, if there is one; b is the pin's from
// then on.
func (p *pin) take(b *lockedmem.Buffer) (has, changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now == nil || subtle.ConstantTimeCompare(p.now.Bytes(), b.Bytes()) == 1 {
		b.Close()
		return p.now != nil, false
	}
	p.now.Close()
	p.now = b
	close(p.other)
	p.other = make(chan struct{})
	return true, true
}

// replaced returns what is closed when another PIN takes the place of this one.
func (p *pin) replaced() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.other
}

func (p *pin) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now.Close()
	p.now = nil
}

// pipe returns a pipe from which the PIN can be read once, or nil if there is none.
func (p *pin) pipe() (*os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now == nil {
		return nil, nil
	}
	return secret.Pipe(p.now.Bytes())
}

// RenewPIN makes the store log in with another PIN from now on, in the present child and in
// later ones, and never again with one that was refused. The store closes pin. A store
// without a PIN ignores it.
func (s *Store) RenewPIN(pin *lockedmem.Buffer) error {
	if pin.Len() > maxPIN {
		defer pin.Close()
		return keystore.NoPINf("isolated: a PIN of more than %d bytes", maxPIN)
	}
	raw := lockedmem.Copy(pin.Bytes())
	defer raw.Close()
	has := s.takePIN(pin)
	if p, _, _ := s.look(); p == nil || !has {
		return nil // the next one gets it
	}
	return s.ask(opRenewPIN, func(m message) message { return m.bytes(raw.Bytes()) }, nil)
}

// takePIN replaces the PIN. Without a child, calls wait from then on for the one that gets it: that
// another PIN was refused says nothing about it.
func (s *supervisor) takePIN(b *lockedmem.Buffer) (has bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	has, changed := s.pin.take(b)
	if changed && s.now == nil {
		s.err = nil
	}
	return has
}

func renewPIN(s *server, f *fields, m message) (message, error) {
	raw := f.bytes()
	if err := f.end(); err != nil || len(raw) > maxPIN {
		return nil, errMalformed
	}
	store, err := as[PINTaker](s.store)
	if err != nil {
		return nil, err
	}
	r, err := secret.Pipe(raw)
	if err != nil {
		return nil, fmt.Errorf("isolated: %w", err)
	}
	fd, err := syscall.Dup(int(r.Fd())) // which the store closes
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	syscall.CloseOnExec(fd)
	return m, store.TakePIN(fd)
}

// reread asks for the PIN again before another child starts. If it cannot be read now, it is as it
// was.
func (s *supervisor) reread() {
	if s.config.ReadPIN == nil {
		return
	}
	b, err := s.config.ReadPIN()
	switch {
	case err == nil && b != nil && b.Len() <= maxPIN:
		s.pin.take(b)
	case err == nil:
		b.Close()
	default:
		s.config.log().Warn("the PIN cannot be read again: the previous one is used", "error", err)
	}
}
