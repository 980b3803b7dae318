package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// DefaultCounter is an NV index in the range that is the owner's to give away,
// 0x01800000 to 0x01bfffff (TCG Registry of Reserved TPM 2.0 Handles and
// Localities).
const DefaultCounter tpm2.TPMHandle = 0x01804d53

const counterSize = 8 // bytes of an NV counter

// A Counter is a number in the TPM that only grows, whatever is done to the disk: an
// NV index of the type TPM_NT_COUNTER (TPM 2.0 Library, Part 1, clause 37.2.6). It is
// safe for use by many goroutines.
//
// A counter that is removed and defined again goes on above every value that any
// counter of this TPM had. TPM2_Clear removes it. Where the TPM is a part of a
// virtual machine, a snapshot brings old values back.
//
// An increment is a write to the TPM's flash memory, which wears out: have one for
// many events.
type Counter struct {
	store *Store
	index entity
}

// DefineCounter makes the counter at an NV index, or returns the one that is there.
// It has no password, and is not subject to the dictionary attack protection:
// whoever reaches the TPM can read it and increment it, and nobody can set it back.
func (s *Store) DefineCounter(at tpm2.TPMHandle) (*Counter, error) {
	c, err := s.Counter(at)
	if !errors.Is(err, keystore.ErrNotFound) {
		return c, err
	}
	err = s.do(func() error {
		err := s.device.defineCounter(uint32(at))
		if err == nil || errors.Is(err, tpm2.TPMRCNVDefined) { // by an attempt that broke off
			err = s.firstIncrement(uint32(at))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("tpm: make the counter %#x: %w", uint32(at), err)
	}
	return s.Counter(at)
}

// Counter opens the counter at an NV index. [keystore.ErrNotFound] says that there
// is none, [keystore.ErrWrongKey] that the index is something else.
func (s *Store) Counter(at tpm2.TPMHandle) (*Counter, error) {
	if err := s.open(); err != nil {
		return nil, err
	}
	if uint32(at)>>24 != 0x01 {
		return nil, fmt.Errorf("tpm: %#x is no NV index, such as %#x: %w", uint32(at), uint32(DefaultCounter), keystore.ErrWrongKey)
	}
	c := &Counter{store: s}
	err := s.do(func() (err error) {
		var written bool
		if c.index, written, err = s.device.counter(uint32(at)); err == nil && !written {
			err = keystore.ErrNotFound // its making broke off
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
	err = c.use(func(s *session) error {
		value, err = c.read(s)
		return err
	})
	return value, err
}

// Increment adds one, and returns the value after that. Where a connection broke it
// may have added more.
func (c *Counter) Increment() (value uint64, err error) {
	err = c.use(func(s *session) error {
		if err := c.store.device.increment(s, c.index); err != nil {
			return err
		}
		value, err = c.read(s)
		return err
	})
	return value, err
}

// use has the commands authorized by a session, so that nobody between us and the
// TPM can change what it answers.
func (c *Counter) use(f func(*session) error) error {
	err := c.store.use(c.store.parent, c.store.open, f)
	if err != nil {
		return fmt.Errorf("tpm: counter %#x: %w", c.index.handle, err)
	}
	return nil
}

// read is TPM2_NV_Read (Part 3, clause 31.13).
func (c *Counter) read(s *session) (uint64, error) {
	a, err := c.store.device.run(command{
		code: ccNVRead, handles: []entity{c.index, c.index}, session: s, params: []byte{0, counterSize, 0, 0},
	})
	if err != nil {
		return 0, err
	}
	b, rest, ok := cut16(a.params)
	if !ok || len(b) != counterSize || len(rest) > 0 {
		return 0, errAnswer()
	}
	return binary.BigEndian.Uint64(b), nil
}

// increment is TPM2_NV_Increment (clause 31.8).
func (d *Device) increment(s *session, index entity) error {
	_, err := d.run(command{code: ccNVIncrement, handles: []entity{index, index}, session: s})
	return err
}

// firstIncrement gives a new counter its value: before that it can not be read.
func (s *Store) firstIncrement(at uint32) error {
	index, written, err := s.device.counter(at)
	if err != nil || written {
		return err
	}
	session, err := s.device.session(s.parent)
	if err != nil {
		return err
	}
	return s.device.increment(session, index)
}

// defineCounter is TPM2_NV_DefineSpace (clause 31.3).
func (d *Device) defineCounter(at uint32) error {
	public := tpm2.Marshal(tpm2.TPMSNVPublic{
		NVIndex: tpm2.TPMHandle(at), NameAlg: tpm2.TPMAlgSHA256, DataSize: counterSize,
		Attributes: tpm2.TPMANV{
			NT: tpm2.TPMNTCounter, OwnerWrite: true, OwnerRead: true, AuthWrite: true, AuthRead: true, NoDA: true,
		},
	})
	_, err := d.run(command{
		code: ccNVDefineSpace, handles: []entity{owner()}, password: true, params: append16([]byte{0, 0}, public),
	})
	if errors.Is(err, tpm2.TPMRCBadAuth) || errors.Is(err, tpm2.TPMRCAuthFail) {
		err = fmt.Errorf("%w: the owner has a password: make it with tpm2_nvdefine -C o -s 8 -a \"ownerread|ownerwrite|authread|authwrite|no_da|nt=counter\" %#x first", err, at)
	}
	return err
}

// counter is TPM2_NV_ReadPublic (clause 31.6). It checks that the index is a counter
// that needs no password, and keeps each of its values.
func (d *Device) counter(at uint32) (index entity, written bool, err error) {
	a, err := d.run(command{code: ccNVReadPublic, handles: []entity{{handle: at}}})
	if err != nil {
		return index, false, err
	}
	b, _, ok := cut16(a.params)
	if !ok {
		return index, false, fmt.Errorf("tpm: TPM2_NV_ReadPublic: %w", errAnswer())
	}
	p, err := tpm2.Unmarshal[tpm2.TPMSNVPublic](b)
	if err != nil {
		return index, false, fmt.Errorf("tpm: TPM2_NV_ReadPublic: %w: %w", keystore.ErrBadData, err)
	}
	t := p.Attributes
	if t.NT != tpm2.TPMNTCounter || !t.AuthRead || !t.AuthWrite || !t.NoDA || t.Orderly || p.NameAlg != tpm2.TPMAlgSHA256 || uint32(p.NVIndex) != at {
		return index, false, fmt.Errorf("it is no counter of ours: choose another index: %w", keystore.ErrWrongKey)
	}
	return entity{handle: at, name: nameOf(b)}, t.Written, nil
}

// Remove takes the counter out of the TPM.
func (c *Counter) Remove() error {
	err := c.store.device.Do(func(transport.TPM) error {
		_, err := c.store.device.run(command{code: ccNVUndefineSpace, handles: []entity{owner(), c.index}, password: true})
		return err
	})
	if err != nil {
		return fmt.Errorf("tpm: remove the counter %#x: %w", c.index.handle, err)
	}
	return nil
}
