package tpm

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
)

// An object is a key as kept outside the TPM: its public area, and its private area
// encrypted under its parent. The TPM has room for three loaded keys, so keys come and
// go. The Device's turn guards the fields that say where it is loaded.
type object struct {
	parent  *object // nil: the storage key
	public  []byte  // TPMT_PUBLIC
	private []byte  // contents of a TPM2B_PRIVATE
	name    []byte
	auth    *lockedmem.Buffer // the PIN of the store, or nil

	persistent uint32   // handle of a persistent key, else 0
	places     []uint32 // of a storage key: the handles to look for it first
	handle     uint32   // 0: not loaded
	pinned     bool     // in use by the current operation
}

func newObject(parent *object, public, private []byte) *object {
	return &object{parent: parent, public: public, private: private, name: nameOf(public)}
}

// nameOf returns the Name of an object whose name algorithm is SHA-256 (TPM 2.0
// Library, Part 1, clause 14).
func nameOf(public []byte) []byte {
	sum := sha256.Sum256(public)
	return append([]byte{0, 0x0b}, sum[:]...)
}

func (o *object) entity() entity { return entity{handle: o.handle, name: o.name, auth: o.auth.Bytes()} }

// named returns a loaded key for go-tpm.
func (o *object) named() tpm2.NamedHandle {
	return tpm2.NamedHandle{Handle: tpm2.TPMHandle(o.handle), Name: tpm2.TPM2BName{Buffer: o.name}}
}

// A loadedKey is a key while it is loaded, with the session for its commands.
type loadedKey struct {
	tpm     *executor
	entity  entity
	session *session
}

// load loads a key and those above it. They stay loaded at least until the operation
// ends.
func (x *executor) load(o *object) error {
	if o.handle != 0 {
		x.resources.touch(o)
		return nil
	}
	var handle uint32
	var err error
	switch {
	case o.parent == nil:
		if handle, err = x.loadRoot(o); err == nil && !slices.Contains(x.roots, o) {
			x.roots = append(x.roots, o)
		}
	case o.persistent != 0:
		handle, err = x.checkPersistent(o)
	default:
		handle, err = x.loadBlob(o)
	}
	if err == nil {
		x.resources.keep(o, handle)
	}
	return err
}

// loadBlob loads a key, retrying once if its storage key was not where it had been.
func (x *executor) loadBlob(o *object) (uint32, error) {
	handle, err := x.loadUnder(o)
	if x.misplaced(err) {
		handle, err = x.loadUnder(o)
	}
	return handle, err
}

// loadUnder is TPM2_Load (TPM 2.0 Library, Part 3, clause 12.2), after the parent is loaded.
func (x *executor) loadUnder(o *object) (uint32, error) {
	if err := x.load(o.parent); err != nil {
		return 0, err
	}
	s, err := x.session(root(o))
	if err != nil {
		return 0, err
	}
	r, err := x.run(command{
		code: ccLoad, handles: []entity{o.parent.entity()}, session: s,
		params: append16(append16(nil, o.private), o.public), makes: true,
	})
	return r.handle, err
}

// root returns the storage key at the top of a chain of keys.
func root(o *object) *object {
	for o.parent != nil {
		o = o.parent
	}
	return o
}

// create is TPM2_Create. data is the key itself if it comes from outside, otherwise
// empty.
func (x *executor) create(parent *object, public []byte, auth *lockedmem.Buffer, data []byte) (*object, error) {
	if err := x.load(parent); err != nil {
		return nil, err
	}
	s, err := x.session(root(parent))
	if err != nil {
		return nil, err
	}
	params := createParams(public, auth.Bytes(), data)
	defer clear(params)
	r, err := x.run(command{code: ccCreate, handles: []entity{parent.entity()}, session: s, params: params, secretIn: true})
	if err != nil {
		return nil, err
	}
	private, rest, ok := cut16(r.params)
	made, _, ok2 := cut16(rest)
	if !ok || !ok2 {
		return nil, fmt.Errorf("tpm: TPM2_Create: %w", errAnswer())
	}
	o := newObject(parent, slices.Clone(made), slices.Clone(private))
	o.auth = auth
	return o, nil
}

// createParams marshals the parameters of TPM2_Create (TPM 2.0 Library, Part 3, clause
// 12.1) into a buffer that does not grow, so that it leaves no copy of a secret behind.
func createParams(public, auth, data []byte) []byte {
	sensitive := 2 + len(auth) + 2 + len(data)
	params := make([]byte, 0, 2+sensitive+2+len(public)+6)
	params = binary.BigEndian.AppendUint16(params, uint16(sensitive))
	params = append16(append16(params, auth), data)
	params = append16(params, public)
	return append(params, 0, 0, 0, 0, 0, 0) // no outside information, no PCRs
}
