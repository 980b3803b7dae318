package tpm

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// DefaultCounter is an NV index in the range that the owner assigns, 0x01800000 to
// 0x01bfffff (TCG Registry of Reserved TPM 2.0 Handles and Localities).
const DefaultCounter tpm2.TPMHandle = 0x01804d53

// A Counter is a number in the TPM that only grows, even if the disk is restored: an NV
// index of type TPM_NT_COUNTER (TPM 2.0 Library, Part 1, clause 37.2.6). It is safe for
// concurrent use.
//
// A counter that is removed and defined again starts above every value that any counter
// of this TPM ever had. TPM2_Clear removes it. If the TPM belongs to a virtual machine,
// restoring a snapshot restores old values.
//
// An increment writes to the TPM's flash memory, which wears out: use one increment
// for many events.
type Counter struct {
	storage *storage
	index   entity
}

// DefineCounter makes the counter at an NV index, or returns the existing one. It has no
// password, and is not subject to the dictionary attack protection: anyone who can use
// the TPM can read and increment it, but nobody can set it back.
func (s *Store) DefineCounter(at tpm2.TPMHandle) (*Counter, error) {
	c, err := s.Counter(at)
	if !errors.Is(err, keystore.ErrNotFound) {
		return c, err
	}
	err = s.storage.do(func() error {
		err := firstIncrement(s.storage, uint32(at)) // if an attempt was interrupted, or another program made it
		if errors.Is(err, keystore.ErrNotFound) {
			err = nvDefineCounter(s.storage.device.tpm, uint32(at))
			if err == nil || errors.Is(err, tpm2.TPMRCNVDefined) { // another process was faster
				err = firstIncrement(s.storage, uint32(at))
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("tpm: make the counter %#x: %w", uint32(at), ofOthers(err))
	}
	return s.Counter(at)
}

// Counter opens the counter at an NV index. The error is [keystore.ErrNotFound] if
// there is none, and [keystore.ErrWrongKey] if the index is something else.
func (s *Store) Counter(at tpm2.TPMHandle) (*Counter, error) {
	if err := s.storage.open(); err != nil {
		return nil, err
	}
	if uint32(at)>>24 != 0x01 {
		return nil, fmt.Errorf("tpm: %#x is not an NV index, such as %#x: %w", uint32(at), uint32(DefaultCounter), keystore.ErrWrongKey)
	}
	c := &Counter{storage: s.storage}
	err := s.storage.do(func() (err error) {
		var written bool
		if c.index, written, err = nvReadPublic(s.storage.device.tpm, uint32(at)); err == nil && !written {
			err = keystore.ErrNotFound // its creation was interrupted
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("tpm: counter %#x: %w", uint32(at), err)
	}
	return c, nil
}

// Value reads the counter.
func (c *Counter) Value() (value uint64, err error) {
	err = c.use(func(l loadedKey) error {
		value, err = nvRead(l.tpm, l.session, c.index)
		return err
	})
	return value, err
}

// Increment adds one and returns the new value. If the connection broke in between, it
// may have added more than one.
func (c *Counter) Increment() (value uint64, err error) {
	err = c.use(func(l loadedKey) error {
		if err := nvIncrement(l.tpm, l.session, c.index); err != nil {
			return err
		}
		value, err = nvRead(l.tpm, l.session, c.index)
		return err
	})
	return value, err
}

// use runs f in a session, so that no one on the bus can change the TPM's answers.
func (c *Counter) use(f func(loadedKey) error) error {
	err := c.storage.use(c.storage.key, c.storage.open, f)
	if wrongAuth(err) && c.renamed() {
		err = c.storage.use(c.storage.key, c.storage.open, f)
	}
	if err != nil {
		return fmt.Errorf("tpm: counter %#x: %w", c.index.handle, ofOthers(err))
	}
	return nil
}

// renamed reports whether another program changed an attribute of the index, as by locking it,
// and with that its Name, which sessions depend on.
func (c *Counter) renamed() (changed bool) {
	err := c.storage.do(func() error {
		now, _, err := nvReadPublic(c.storage.device.tpm, c.index.handle)
		if err == nil {
			changed = !bytes.Equal(now.name, c.index.name)
			c.index.name = now.name
		}
		return err
	})
	return err == nil && changed
}

// ofOthers explains an error of a counter that another program defined or locked.
func ofOthers(err error) error {
	switch {
	case wrongAuth(err):
		return fmt.Errorf("it has a password (%s): choose another index: %w", codeName(err), keystore.ErrWrongKey)
	case errors.Is(err, tpm2.TPMRCNVLocked):
		return fmt.Errorf("%w: another program locked it: restart the machine, or choose another index", err)
	}
	return err
}

// firstIncrement gives a new counter its first value: until then it cannot be read.
func firstIncrement(s *storage, at uint32) error {
	index, written, err := nvReadPublic(s.device.tpm, at)
	if err != nil || written {
		return err
	}
	session, err := s.device.tpm.session(s.key)
	if err != nil {
		return err
	}
	return nvIncrement(s.device.tpm, session, index)
}

// Remove undefines the NV index of the counter.
func (c *Counter) Remove() error {
	err := c.storage.device.Do(func(transport.TPM) error {
		_, err := c.storage.device.tpm.runAs(uint32(tpm2.TPMRHOwner), command{code: ccNVUndefineSpace, handles: []entity{c.index}})
		return err
	})
	if err != nil {
		return fmt.Errorf("tpm: remove the counter %#x: %w", c.index.handle, err)
	}
	return nil
}
