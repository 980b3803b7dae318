package tpm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// storageKey returns the object of a storage key, which is first looked for at some
// handles: the same object for every store on this Device, so that they share its
// session.
func (x *executor) storageKey(public []byte, places ...uint32) (*object, error) {
	name := nameOf(public)
	for _, o := range x.roots {
		if bytes.Equal(o.name, name) {
			return o, x.load(o)
		}
	}
	o := newObject(nil, public, nil)
	o.places = places
	return o, x.load(o)
}

// provisionStorageKey finds the storage key at a handle, or makes it there.
func (x *executor) provisionStorageKey(at uint32) (storageKey, error) {
	public, _, err := x.readPublic(at)
	if errors.Is(err, tpm2.TPMRCHandle) {
		public, err = x.makeStorageKey(at)
		if err == nil {
			return storageKey{Handle: handle(at), Public: public}, nil
		}
		if errors.Is(err, tpm2.TPMRCNVDefined) { // another program was faster
			public, _, err = x.readPublic(at)
		}
	}
	if err == nil {
		err = checkStorageKey(public)
	}
	if err == nil {
		err = checkRepeatable(x, public)
	}
	if errors.Is(err, keystore.ErrBadData) {
		err = fmt.Errorf("it has an algorithm that this program does not know: %w", keystore.ErrWrongKey)
	}
	if errors.Is(err, keystore.ErrWrongKey) || errors.Is(err, keystore.ErrWeakKey) {
		err = x.useless(at, err)
	}
	if err != nil {
		return storageKey{}, err
	}
	return storageKey{Handle: handle(at), Public: public}, nil
}

// checkRepeatable checks that a storage key of another program can be made again. If it were
// removed and could not, the TPM would look as if it had been cleared. Without the password of
// the owner this cannot be checked, which is no reason to demand it.
func checkRepeatable(x *executor, public []byte) error {
	made, err := x.remake(nameOf(public), variants(public))
	switch {
	case err == nil:
		x.resources.flush(made)
		return nil
	case errors.Is(err, keystore.ErrPIN) && !keystore.PINRefused(err):
		return nil
	case errors.Is(err, keystore.ErrNotFound):
		return fmt.Errorf("it was made in a way that cannot be repeated, so all keys under it would be lost with it: %w", keystore.ErrWrongKey)
	}
	return err
}

// An unfitError says that the key at a handle cannot be the storage key, and names a free handle.
// It is [keystore.ErrUnavailable], whatever the reason.
type unfitError struct {
	at, free uint32
	why      error
}

func (e *unfitError) Error() string {
	return fmt.Sprintf("tpm: the key at %#x cannot be used here: %v: add srk=%#x, a free handle, to the URI of the key store", e.at, e.why, e.free)
}

func (e *unfitError) Unwrap() []error { return []error{keystore.ErrUnavailable, e.why} }

// useless is the error for a handle whose key is not a storage key; it names a free
// handle to use instead.
func (x *executor) useless(at uint32, why error) error {
	free, err := freeHandle(&link{x.resources, x}, defaultSRK)
	if err != nil {
		return err
	}
	return &unfitError{at: at, free: free, why: why}
}

// makeStorageKey makes a storage key at a persistent handle, by the TCG's ECC P-256
// template (TCG TPM v2.0 Provisioning Guidance, clause 7.5.1).
func (x *executor) makeStorageKey(at uint32) ([]byte, error) {
	h, public, err := x.createPrimary(tpm2.Marshal(tpm2.ECCSRKTemplate))
	if err != nil {
		return nil, err
	}
	return public, x.evictControl(entity{handle: h, name: nameOf(public)}, at)
}

// evictControl is TPM2_EvictControl (TPM 2.0 Library, Part 3, clause 28.5): it makes a
// loaded key persistent at a handle, or frees the handle of a persistent one.
func (x *executor) evictControl(e entity, at uint32) error {
	_, err := x.runAs(uint32(tpm2.TPMRHOwner), command{
		code: ccEvictControl, handles: []entity{e}, params: binary.BigEndian.AppendUint32(nil, at),
	})
	return err
}

// unpersist frees the persistent handle of a key, if it has one.
func (x *executor) unpersist(o *object) error {
	if o.persistent == 0 {
		return nil
	}
	err := x.load(o)
	if err == nil {
		err = x.evictControl(o.entity(), o.persistent)
	}
	if errors.Is(err, tpm2.TPMRCHandle) || errors.Is(err, keystore.ErrForeign) {
		return nil // already done
	}
	return err
}

// checkPersistent checks that the right key is at the handle. Only a session proves it:
// someone on the bus could forge this response.
func (x *executor) checkPersistent(o *object) (uint32, error) {
	_, name, err := x.readPublic(o.persistent)
	if err != nil && !errors.Is(err, tpm2.TPMRCHandle) {
		return 0, err
	}
	if !bytes.Equal(name, o.name) {
		return 0, fmt.Errorf("tpm: the key at handle %#x does not match the state file: the TPM was cleared or replaced: enroll this device again with a new state file: %w", o.persistent, keystore.ErrForeign)
	}
	return o.persistent, nil
}

// readPublic is TPM2_ReadPublic: it returns the public area and the Name of a loaded or
// persistent key.
func (x *executor) readPublic(handle uint32) (public, name []byte, err error) {
	r, err := x.run(command{code: ccReadPublic, handles: []entity{{handle: handle}}})
	if err != nil {
		return nil, nil, err
	}
	public, rest, ok := cut16(r.params)
	if ok {
		name, _, ok = cut16(rest)
	}
	if !ok || !bytes.Equal(name, nameOf(public)) {
		return nil, nil, fmt.Errorf("tpm: TPM2_ReadPublic: the key at %#x has no SHA-256 name: %w", handle, keystore.ErrWrongKey)
	}
	return slices.Clone(public), slices.Clone(name), nil
}

// find looks for the persistent key with a Name.
func (x *executor) find(name []byte) (at uint32, public []byte, err error) {
	handles, err := persistentHandles(&link{x.resources, x})
	if err != nil {
		return 0, nil, err
	}
	for _, at := range handles {
		public, found, err := x.readPublic(at)
		switch {
		case err == nil && bytes.Equal(found, name):
			return at, public, nil
		case err != nil && !errors.Is(err, keystore.ErrWrongKey) && !errors.Is(err, keystore.ErrNotFound):
			return 0, nil, err
		}
	}
	return 0, nil, fmt.Errorf("tpm: no persistent key has the Name %x: %w", name, keystore.ErrNotFound)
}
