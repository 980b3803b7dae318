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

// storageKey returns the object of a persistent storage key: the same one for every
// store on this Device, so that they share its session.
func (x *executor) storageKey(persistent uint32, public []byte) (*object, error) {
	name := string(nameOf(public))
	for _, o := range x.roots {
		if string(o.name) == name && o.persistent == persistent {
			return o, x.load(o)
		}
	}
	o := newObject(nil, public, nil)
	o.persistent = persistent
	if err := x.load(o); err != nil {
		return nil, err
	}
	x.roots = append(x.roots, o)
	return o, nil
}

// provisionStorageKey finds the storage key at a handle, or makes it there.
func (x *executor) provisionStorageKey(at uint32) (storageKey, error) {
	public, _, err := x.readPublic(at)
	if errors.Is(err, tpm2.TPMRCHandle) {
		public, err = x.makeStorageKey(at)
	}
	if err == nil {
		err = checkStorageKey(public)
	}
	if errors.Is(err, keystore.ErrWrongKey) || errors.Is(err, keystore.ErrWeakKey) {
		err = fmt.Errorf("tpm: the key at %#x is of no use here: %w: name another handle by ?srk=", at, err)
	}
	if err != nil {
		return storageKey{}, err
	}
	return storageKey{Handle: handle(at), Public: public}, nil
}

// makeStorageKey makes a storage key at a persistent handle.
func (x *executor) makeStorageKey(at uint32) ([]byte, error) {
	h, public, err := x.createPrimary()
	if errors.Is(err, tpm2.TPMRCBadAuth) || errors.Is(err, tpm2.TPMRCAuthFail) {
		return nil, fmt.Errorf("%w: the owner has a password: make the storage key with tpm2_createprimary -C o -G ecc and tpm2_evictcontrol first", err)
	}
	if err != nil {
		return nil, err
	}
	return public, x.evictControl(entity{handle: h, name: nameOf(public)}, at)
}

// evictControl is TPM2_EvictControl (TPM 2.0 Library, Part 3, clause 28.5): it makes a
// loaded key persistent at a handle, or frees the handle of a persistent one.
func (x *executor) evictControl(e entity, at uint32) error {
	_, err := x.run(command{
		code: ccEvictControl, handles: []entity{owner(), e}, password: true,
		params: binary.BigEndian.AppendUint32(nil, at),
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
		return nil // that was done already
	}
	return err
}

// createPrimary is TPM2_CreatePrimary for the TCG's ECC P-256 template of a storage
// key (TCG TPM v2.0 Provisioning Guidance, clause 7.5.1).
func (x *executor) createPrimary() (handle uint32, public []byte, err error) {
	params := append16(nil, []byte{0, 0, 0, 0})
	params = append16(params, tpm2.Marshal(tpm2.ECCSRKTemplate))
	params = append(params, 0, 0, 0, 0, 0, 0)
	r, err := x.run(command{code: ccCreatePrimary, handles: []entity{owner()}, password: true, params: params, makes: true})
	if err != nil {
		return 0, nil, err
	}
	public, _, ok := cut16(r.params)
	if !ok {
		return 0, nil, fmt.Errorf("tpm: TPM2_CreatePrimary: %w", errAnswer())
	}
	return r.handle, slices.Clone(public), nil
}

// checkPersistent checks that the right key is at the handle. Only a session proves
// that it is: someone on the bus could forge this response.
func (x *executor) checkPersistent(o *object) (uint32, error) {
	_, name, err := x.readPublic(o.persistent)
	if err != nil && !errors.Is(err, tpm2.TPMRCHandle) {
		return 0, err
	}
	if !bytes.Equal(name, o.name) {
		return 0, fmt.Errorf("tpm: the key at handle %#x is not the one of the state file: the TPM was cleared or replaced: enroll this device again with a new state file: %w", o.persistent, keystore.ErrForeign)
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
	const firstPersistent, most = 0x81000000, 254
	items, err := capability(&link{x.resources}, tpm2.TPMCapHandles, firstPersistent, most, 4)
	if err != nil {
		return 0, nil, err
	}
	for _, item := range items {
		at = binary.BigEndian.Uint32(item)
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

// owner is the owner hierarchy, with an empty password.
func owner() entity {
	return entity{handle: uint32(tpm2.TPMRHOwner), name: binary.BigEndian.AppendUint32(nil, uint32(tpm2.TPMRHOwner))}
}
