package tpm

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// loadRoot finds a storage key at its expected handle or at another persistent one, or
// makes it again: other programs remove keys that they did not make, or put their own in
// place, but as long as the TPM is not cleared, its owner seed yields the same key.
func (x *executor) loadRoot(o *object) (uint32, error) {
	at, err := x.whereIs(o)
	if err == nil {
		o.persistent = at
		return at, nil
	}
	if !errors.Is(err, keystore.ErrNotFound) {
		return 0, err
	}
	o.persistent = 0
	handle, err := x.remake(o.name, variants(o.public))
	if errors.Is(err, keystore.ErrNotFound) {
		return 0, fmt.Errorf("tpm: the key %s does not match the state file: the TPM was cleared or replaced: enroll this device again with a new state file: %w", o.place(), keystore.ErrForeign)
	}
	var off *offError
	switch {
	case errors.As(err, &off): // its keys exist, but nobody can see them
		err = fmt.Errorf("tpm: the storage key %s cannot be used: %w", o.place(), err)
	case err != nil:
		err = fmt.Errorf("tpm: the storage key %s is gone, and cannot be made again: %w", o.place(), err)
	}
	return handle, err
}

// place says where a storage key is expected.
func (o *object) place() string {
	if len(o.places) == 0 {
		return "of the owner hierarchy"
	}
	return fmt.Sprintf("at handle %#x", o.places[0])
}

// misplaced reports whether an error results from another program having removed a
// storage key from its handle, or put another key there, whose Name does not match the
// session. Such storage keys are looked for again when needed.
func (x *executor) misplaced(err error) (found bool) {
	var e *Error
	if !errors.As(err, &e) || !e.is(tpm2.TPMRCHandle, tpm2.TPMRCBadAuth, tpm2.TPMRCAuthFail) {
		return false
	}
	for _, o := range x.roots {
		if o.handle == 0 || o.persistent == 0 {
			continue
		}
		_, name, err := x.readPublic(o.persistent)
		if !bytes.Equal(name, o.name) && (err == nil || errors.Is(err, keystore.ErrNotFound) || errors.Is(err, keystore.ErrWrongKey)) {
			x.resources.unload(o)
			found = true
		}
	}
	return found
}

// whereIs returns the persistent handle of a storage key. Only a session proves that it is
// the right one: someone on the bus could forge the responses.
func (x *executor) whereIs(o *object) (uint32, error) {
	for _, at := range o.places {
		_, name, err := x.readPublic(at)
		switch {
		case err == nil && bytes.Equal(name, o.name):
			return at, nil
		case err != nil && !errors.Is(err, keystore.ErrNotFound) && !errors.Is(err, keystore.ErrWrongKey):
			return 0, err
		}
	}
	at, _, err := x.find(o.name)
	return at, err
}

// variants returns the templates from which a storage key with this public area may have
// been made: the TCG's guidance and its specification of key files differ in what they
// supply for the unique field, zeros or nothing.
func variants(public []byte) (list []tpm2.TPMTPublic) {
	p, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		return nil
	}
	zeros := *p
	switch p.Type {
	case tpm2.TPMAlgECC:
		parms, err := p.Parameters.ECCDetail()
		if err != nil {
			return nil
		}
		b := tpm2.TPM2BECCParameter{Buffer: make([]byte, curveSize(parms.CurveID))}
		zeros.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: b, Y: b})
		p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	case tpm2.TPMAlgRSA:
		parms, err := p.Parameters.RSADetail()
		if err != nil {
			return nil
		}
		zeros.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: make([]byte, int(parms.KeyBits)/8)})
		p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{})
	}
	return []tpm2.TPMTPublic{zeros, *p}
}

// curveSize returns the size of a coordinate, in bytes.
func curveSize(curve tpm2.TPMECCCurve) int {
	switch curve {
	case tpm2.TPMECCNistP384:
		return 48
	case tpm2.TPMECCNistP521:
		return 66
	}
	return 32
}

// usualRoots returns the templates of the storage keys that most programs use.
func usualRoots() []tpm2.TPMTPublic {
	return append(variants(tpm2.Marshal(tpm2.ECCSRKTemplate)), variants(tpm2.Marshal(tpm2.RSASRKTemplate))...)
}

// remake makes the storage key with a Name again, from the first template that yields it.
// The error is [keystore.ErrNotFound] if none does, and the TPM's if it accepted none of
// them.
func (x *executor) remake(name []byte, templates []tpm2.TPMTPublic) (handle uint32, err error) {
	var refused []error
	for _, t := range templates {
		handle, public, err := x.createPrimary(tpm2.Marshal(t))
		if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, tpm2.TPMRCValue) {
			refused = append(refused, err) // this TPM cannot make such keys
			continue
		}
		if err != nil {
			return 0, err
		}
		if bytes.Equal(nameOf(public), name) {
			return handle, nil
		}
		x.resources.flush(handle)
	}
	if n := len(refused); n > 0 && n == len(templates) {
		return 0, refused[n-1]
	}
	return 0, fmt.Errorf("tpm: no storage key has the Name %x: %w", name, keystore.ErrNotFound)
}

// rootNamed returns the storage key with a Name; nothing else is known about it.
func (x *executor) rootNamed(name []byte) (*object, error) {
	at, public, err := x.find(name)
	if err == nil {
		return x.storageKey(public, at)
	}
	if !errors.Is(err, keystore.ErrNotFound) {
		return nil, err
	}
	handle, err := x.remake(name, usualRoots())
	if err != nil {
		return nil, err
	}
	if public, _, err = x.readPublic(handle); err != nil {
		return nil, err
	}
	x.resources.flush(handle)
	return x.storageKey(public, defaultSRK)
}

// FindStorageKey returns nil if a storage key with a TPM Name is in the TPM, or can be
// made there again, and [keystore.ErrNotFound] if not: then the TPM was cleared.
func (d *Device) FindStorageKey(name []byte) error {
	return d.Do(func(transport.TPM) error {
		_, _, err := d.tpm.find(name)
		if errors.Is(err, keystore.ErrNotFound) {
			_, err = d.tpm.remake(name, usualRoots())
		}
		return err
	})
}

// createPrimary is TPM2_CreatePrimary (TPM 2.0 Library, Part 3, clause 24.1) in the
// owner hierarchy.
func (x *executor) createPrimary(template []byte) (handle uint32, public []byte, err error) {
	r, err := x.runAs(uint32(tpm2.TPMRHOwner), command{code: ccCreatePrimary, params: primaryParams(template), makes: true})
	if err != nil {
		return 0, nil, err
	}
	public, _, ok := cut16(r.params)
	if !ok {
		return 0, nil, fmt.Errorf("tpm: TPM2_CreatePrimary: %w", errAnswer())
	}
	return r.handle, public, nil
}

// primaryParams marshals the parameters of TPM2_CreatePrimary for a key without a password.
func primaryParams(template []byte) []byte {
	params := append16(nil, []byte{0, 0, 0, 0})
	params = append16(params, template)
	return append(params, 0, 0, 0, 0, 0, 0) // no outside information, no PCRs
}

// KeepStorageKey makes the storage key of a store persistent again if another program
// removed it, so that not every process must make it again: at its earlier handle, or at
// the next free one. The state file records the handle.
func KeepStorageKey(s *Store) error {
	s.provisioned.admin.Lock()
	defer s.provisioned.admin.Unlock()
	if err := s.provisioned.refresh(); err != nil {
		return err
	}
	var at uint32
	err := s.storage.do(func() (err error) {
		at, err = s.storage.device.tpm.keepRoot(s.storage.key)
		return err
	})
	if err != nil || at == uint32(s.provisioned.state.file.StorageKey.Handle) {
		return err
	}
	return s.provisioned.state.change(func(f *stateFile) { f.StorageKey.Handle = handle(at) })
}

// keepRoot makes a storage key persistent, and returns its handle. It tries again if another
// process takes the handle in that moment, perhaps with the same key.
func (x *executor) keepRoot(o *object) (at uint32, err error) {
	for range 3 {
		if err := x.load(o); err != nil {
			return 0, err
		}
		if o.persistent != 0 {
			return o.persistent, nil
		}
		if at, err = freeHandle(&link{x.resources, x}, o.places[0]); err != nil {
			return 0, err
		}
		err = x.evictControl(o.entity(), at)
		if err != nil && !errors.Is(err, tpm2.TPMRCNVDefined) {
			return 0, err
		}
		x.resources.unload(o)
		if err == nil {
			return at, x.load(o)
		}
	}
	return 0, err
}

// freeHandle returns the first free persistent handle, starting at from.
func freeHandle(t transport.TPM, from uint32) (uint32, error) {
	const lastOfOwner = 0x817fffff // higher ones belong to the platform
	taken, err := persistentHandles(t)
	if err != nil {
		return 0, err
	}
	for at := from; at <= lastOfOwner; at++ {
		if !slices.Contains(taken, at) {
			return at, nil
		}
	}
	return 0, fmt.Errorf("tpm: no persistent handle is free from %#x on: %w", from, keystore.ErrExists)
}

func persistentHandles(t transport.TPM) ([]uint32, error) { return Handles(t, 0x81000000, 0x81ffffff) }
