package tpm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// An object is a key as it is outside the TPM: its public area and its private
// area under its parent. The TPM has room for three loaded keys, so keys come
// and go; what is loaded is guarded by the turn of the Device.
type object struct {
	parent  *object // nil: the storage key
	public  []byte  // TPMT_PUBLIC
	private []byte  // contents of a TPM2B_PRIVATE
	name    []byte
	auth    *lockedmem.Buffer // the PIN of the store, or nil

	persistent uint32 // handle, for a key that is in the TPM for good
	handle     uint32 // 0: not loaded
	pinned     bool   // the operation under way uses it
}

func newObject(parent *object, public, private []byte) *object {
	return &object{parent: parent, public: public, private: private, name: nameOf(public)}
}

// nameOf is the Name of an object with the name algorithm SHA-256 (TPM 2.0
// Library, Part 1, clause 14).
func nameOf(public []byte) []byte {
	sum := sha256.Sum256(public)
	return append([]byte{0, 0x0b}, sum[:]...)
}

func (o *object) entity() entity { return entity{handle: o.handle, name: o.name, auth: o.auth.Bytes()} }

// named is a loaded key as go-tpm wants it.
func (o *object) named() tpm2.NamedHandle {
	return tpm2.NamedHandle{Handle: tpm2.TPMHandle(o.handle), Name: tpm2.TPM2BName{Buffer: o.name}}
}

// load loads a key and those above it, and keeps them until the operation ends.
func (d *Device) load(o *object) error {
	if o.handle != 0 {
		o.pinned = true
		if i := slices.Index(d.resident, o); i != len(d.resident)-1 {
			d.resident = append(slices.Delete(d.resident, i, i+1), o)
		}
		return nil
	}
	var handle uint32
	var err error
	if o.persistent != 0 {
		handle, err = d.checkPersistent(o)
	} else {
		handle, err = d.loadBlob(o)
	}
	if err != nil {
		return err
	}
	delete(d.made, handle)
	o.handle, o.pinned = handle, true
	d.resident = append(d.resident, o)
	return nil
}

func (d *Device) loadBlob(o *object) (uint32, error) {
	if err := d.load(o.parent); err != nil {
		return 0, err
	}
	s, err := d.session(root(o))
	if err != nil {
		return 0, err
	}
	a, err := d.run(command{
		code: ccLoad, handles: []entity{o.parent.entity()}, session: s,
		params: append16(append16(nil, o.private), o.public), makes: true,
	})
	return a.handle, err
}

// checkPersistent asks whether the right key is at the handle. That it is, a
// session proves later: somebody on the bus may answer what he likes.
func (d *Device) checkPersistent(o *object) (uint32, error) {
	_, name, err := d.readPublic(o.persistent)
	if err != nil && !errors.Is(err, tpm2.TPMRCHandle) {
		return 0, err
	}
	if !bytes.Equal(name, o.name) {
		return 0, fmt.Errorf("tpm: the key at handle %#x is not the one of the state file: the TPM was cleared or replaced: enroll this device again with a new state file: %w", o.persistent, keystore.ErrForeign)
	}
	return o.persistent, nil
}

// readPublic returns the public area and the Name of a loaded or persistent key.
func (d *Device) readPublic(handle uint32) (public, name []byte, err error) {
	a, err := d.run(command{code: ccReadPublic, handles: []entity{{handle: handle}}})
	if err != nil {
		return nil, nil, err
	}
	public, rest, ok := cut16(a.params)
	if ok {
		name, _, ok = cut16(rest)
	}
	if !ok || !bytes.Equal(name, nameOf(public)) {
		return nil, nil, fmt.Errorf("tpm: TPM2_ReadPublic: the key at %#x has no SHA-256 name: %w", handle, keystore.ErrWrongKey)
	}
	return slices.Clone(public), slices.Clone(name), nil
}

// root is the storage key at the top of a key.
func root(o *object) *object {
	for o.parent != nil {
		o = o.parent
	}
	return o
}

// evict flushes the loaded key that was not used for longest.
func (d *Device) evict() bool {
	for _, o := range d.resident {
		if !o.pinned && o.persistent == 0 {
			d.unload(o)
			return true
		}
	}
	return false
}

// unload flushes a key, if it is loaded.
func (d *Device) unload(o *object) {
	i := slices.Index(d.resident, o)
	if i < 0 {
		return
	}
	d.resident = slices.Delete(d.resident, i, i+1)
	handle := o.handle
	o.handle, o.pinned = 0, false
	if o.persistent == 0 {
		d.flush(handle)
	}
}

// drop takes a key out of the TPM, and those that were loaded for its sake.
func (d *Device) drop(o *object) {
	for ; o.parent != nil; o = o.parent {
		d.unload(o)
	}
}

// create makes a key under a parent. data is the key of a secret one that came
// from outside.
func (d *Device) create(parent *object, public []byte, auth *lockedmem.Buffer, data []byte) (*object, error) {
	if err := d.load(parent); err != nil {
		return nil, err
	}
	s, err := d.session(root(parent))
	if err != nil {
		return nil, err
	}
	params := createParams(public, auth.Bytes(), data)
	defer clear(params)
	a, err := d.run(command{code: ccCreate, handles: []entity{parent.entity()}, session: s, params: params, secretIn: true})
	if err != nil {
		return nil, err
	}
	private, rest, ok := cut16(a.params)
	made, _, ok2 := cut16(rest)
	if !ok || !ok2 {
		return nil, fmt.Errorf("tpm: TPM2_Create: %w", errAnswer())
	}
	o := newObject(parent, slices.Clone(made), slices.Clone(private))
	o.auth = auth
	return o, nil
}

// createParams are the parameters of TPM2_Create (TPM 2.0 Library, Part 3, clause
// 12.1), in one piece that does not grow, so that no secret stays behind.
func createParams(public, auth, data []byte) []byte {
	sensitive := 2 + len(auth) + 2 + len(data)
	params := make([]byte, 0, 2+sensitive+2+len(public)+6)
	params = binary.BigEndian.AppendUint16(params, uint16(sensitive))
	params = append16(append16(params, auth), data)
	params = append16(params, public)
	return append(params, 0, 0, 0, 0, 0, 0) // no outside information, no PCRs
}

// createPrimary makes the storage key of the TCG's ECC P-256 template (TCG TPM
// v2.0 Provisioning Guidance, clause 7.5.1).
func (d *Device) createPrimary() (handle uint32, public []byte, err error) {
	params := append16(nil, []byte{0, 0, 0, 0})
	params = append16(params, tpm2.Marshal(tpm2.ECCSRKTemplate))
	params = append(params, 0, 0, 0, 0, 0, 0)
	a, err := d.run(command{code: ccCreatePrimary, handles: []entity{owner()}, password: true, params: params, makes: true})
	if err != nil {
		return 0, nil, err
	}
	public, _, ok := cut16(a.params)
	if !ok {
		return 0, nil, fmt.Errorf("tpm: TPM2_CreatePrimary: %w", errAnswer())
	}
	return a.handle, slices.Clone(public), nil
}

// owner is the owner hierarchy, without a password.
func owner() entity {
	return entity{handle: uint32(tpm2.TPMRHOwner), name: binary.BigEndian.AppendUint32(nil, uint32(tpm2.TPMRHOwner))}
}
