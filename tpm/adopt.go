package tpm

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/internal/oaeptrial"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// An adoption is what must be remembered about a key that another program made.
type adoption struct {
	PIN    bool        `json:"pin"`              // its authorization value is the PIN of the store
	Parent *storageKey `json:"parent,omitempty"` // nil: the storage key of the store
}

// inspect returns what the public area of a key proves.
func (k *storedKey) inspect() (evidence, error) {
	if k.Adopted == nil {
		return inspect(k.Algorithm, k.Public)
	}
	e, err := inspectAdopted(k.Algorithm, k.Public)
	e.pin = k.Adopted.PIN
	return e, err
}

// inspectAdopted checks that a key of another program stays in the TPM, needs no policy,
// and does what an algorithm requires. Unlike the keys made here, it may do more, leave
// the scheme open, or be subject to the dictionary attack protection.
func inspectAdopted(a keystore.Algorithm, public []byte) (evidence, error) {
	p, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil || !bytes.Equal(tpm2.Marshal(p), public) {
		return evidence{}, fmt.Errorf("tpm: %v key: not a public area: %w", a, keystore.ErrBadData)
	}
	t, err := template(a, made, false)
	if err != nil {
		return evidence{}, err
	}
	if err := stays(p); err != nil {
		return evidence{}, fmt.Errorf("tpm: %v key: %w", a, err)
	}
	if has, wants := p.ObjectAttributes, t.ObjectAttributes; p.Type != t.Type || wants.SignEncrypt && !has.SignEncrypt || wants.Decrypt && !has.Decrypt || !sameParameters(p, &t) {
		return evidence{}, fmt.Errorf("tpm: the key is not for %v: %w", a, keystore.ErrWrongKey)
	}
	e := evidence{from: given, public: p}
	if p.ObjectAttributes.FixedTPM && p.ObjectAttributes.SensitiveDataOrigin { // TPM2_Import does not check the latter
		e.from = made
	}
	return e, nil
}

// stays checks that a key cannot leave its TPM, and can be used only with its
// authorization value. A key without fixedTPM stays there, too, if it has no policy:
// TPM2_Duplicate needs one.
func stays(p *tpm2.TPMTPublic) error {
	a := p.ObjectAttributes
	switch {
	case p.Type == tpm2.TPMAlgKeyedHash && !a.SignEncrypt && !a.Decrypt:
		return fmt.Errorf("it is sealed data, not a key: %w", errors.ErrUnsupported)
	case a.FixedTPM != a.FixedParent, !a.FixedTPM && len(p.AuthPolicy.Buffer) > 0:
		return fmt.Errorf("it may be moved to another TPM: %w", keystore.ErrWeakKey)
	case p.NameAlg != tpm2.TPMAlgSHA256:
		return fmt.Errorf("its Name is not made with SHA-256: %w", errors.ErrUnsupported)
	case a.Restricted && a.Decrypt:
		return fmt.Errorf("it is a storage key, which is only for keys below it: %w", errors.ErrUnsupported)
	case !a.UserWithAuth:
		return fmt.Errorf("it can be used only with a policy, which this store cannot satisfy: %w", errors.ErrUnsupported)
	case len(p.AuthPolicy.Buffer) > 0:
		return fmt.Errorf("it has a policy, which may let others use it without its password: %w", errors.ErrUnsupported)
	case a.Restricted:
		return fmt.Errorf("it is restricted to data that the TPM itself made: %w", errors.ErrUnsupported)
	}
	return nil
}

// sameParameters compares the parameters of a key with those of a template. The key may
// leave its scheme open.
func sameParameters(p, t *tpm2.TPMTPublic) bool {
	has, wants := *p, *t
	open := func(x tpm2.TPMTPublic) tpm2.TPMTPublic {
		switch x.Type {
		case tpm2.TPMAlgRSA:
			if parms, err := x.Parameters.RSADetail(); err == nil {
				free := *parms
				free.Scheme = tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgNull}
				x.Parameters = tpm2.NewTPMUPublicParms(x.Type, &free)
			}
		case tpm2.TPMAlgECC:
			if parms, err := x.Parameters.ECCDetail(); err == nil {
				free := *parms
				free.Scheme = tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgNull}
				x.Parameters = tpm2.NewTPMUPublicParms(x.Type, &free)
			}
		}
		return x
	}
	same := func(x, y tpm2.TPMTPublic) bool {
		x.ObjectAttributes, x.Unique = y.ObjectAttributes, y.Unique
		return bytes.Equal(tpm2.Marshal(x), tpm2.Marshal(y))
	}
	return same(has, wants) || same(has, open(wants))
}

// Algorithms returns the algorithms that a key of another program can be imported for,
// most common first. There may be none.
func (f *TSS2) Algorithms() (list []keystore.Algorithm) {
	for _, a := range []keystore.Algorithm{
		keystore.ECDSAP256, keystore.ECDSAP384, keystore.RSASign2048, keystore.RSASign3072, keystore.RSASign4096,
		keystore.RSADecrypt2048, keystore.RSADecrypt3072, keystore.RSADecrypt4096,
		keystore.HMACSHA256, keystore.AES128CBC, keystore.AES256CBC, keystore.AESCMAC128,
	} {
		if _, err := inspectAdopted(a, f.Public); err == nil {
			list = append(list, a)
		}
	}
	return list
}

// Usable returns nil if the key can be imported for some algorithm, or why not.
func (f *TSS2) Usable() error {
	p, err := tpm2.Unmarshal[tpm2.TPMTPublic](f.Public)
	if err != nil {
		return fmt.Errorf("tpm: TSS2 key: its public area is damaged: %w", keystore.ErrBadData)
	}
	if err := stays(p); err != nil {
		return fmt.Errorf("tpm: TSS2 key: %w", err)
	}
	if len(f.Algorithms()) == 0 {
		return fmt.Errorf("tpm: TSS2 key: a key of its kind or size%s is not supported: %w", scheme(p), errors.ErrUnsupported)
	}
	return nil
}

// adopt returns the key of a key file whose storage key is in the TPM. The caller must
// hold admin.
func (p *provisionedKeys) adopt(a keystore.Algorithm, f *TSS2) (storedKey, error) {
	var first error
	for _, template := range f.primaries() {
		k, err := p.adoptUnder(a, f, template)
		unmade := first != nil && errors.Is(err, errors.ErrUnsupported) // this TPM has no such parents
		if !unmade && !errors.Is(err, keystore.ErrForeign) {
			return k, err
		}
		first = cmp.Or(first, err)
	}
	return storedKey{}, first
}

// adoptUnder is adopt with one of the templates of primaries.
func (p *provisionedKeys) adoptUnder(a keystore.Algorithm, f *TSS2, template []byte) (storedKey, error) {
	parent, err := p.storage.parentOf(f, template)
	if err != nil {
		return storedKey{}, err
	}
	if err := p.storage.mayTry(f, parent); err != nil {
		return storedKey{}, err
	}
	k := storedKey{Algorithm: a, Public: f.Public, Private: f.Private, Adopted: &adoption{Parent: parent}}
	if f.Seed != nil {
		if k.Private, err = p.importPrivate(p.parent(k), f); err != nil {
			return storedKey{}, err
		}
	}
	guesses := f.guesses(p.pin.Len() > 0)
	for i, pin := range guesses {
		if i > 0 { // the guess before may have been counted
			if err := p.storage.mayTry(f, parent); err != nil {
				return storedKey{}, err
			}
		}
		k.Adopted = &adoption{PIN: pin, Parent: parent}
		if err = p.tryOut(p.record(k)); !wrongAuth(err) {
			return k, err
		}
	}
	return k, &uselessError{f.unopened(guesses), err, keystore.ErrPIN}
}

// mayTry returns an error if a wrong password of a key file's key or of its parent would lock the
// TPM: nobody knows yet which passwords they have.
func (s *storage) mayTry(f *TSS2, parent *storageKey) error {
	counted := false
	areas := [][]byte{f.Public}
	if parent != nil && parent.Handle != 0 {
		areas = append(areas, parent.Public)
	}
	for _, public := range areas {
		p, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
		counted = counted || err == nil && !p.ObjectAttributes.NoDA
	}
	if !counted {
		return nil
	}
	return s.device.Do(func(t transport.TPM) error {
		failed, most, err := wrongTries(t)
		if err == nil && failed > 0 && failed+1 == most {
			err = fmt.Errorf("tpm: TSS2 key: it was not tried, since it or its parent may have another password: %w", &LastTryError{})
		}
		return err
	})
}

// guesses says whether to try a key with the PIN of a store that has one, without a PIN,
// or both: first what its file says. Some programs do not say, and some say the opposite
// (tpm2_encodeobject of tpm2-tools 5.4). No PIN is tried after the PIN only if the TPM does not
// count wrong guesses.
func (f *TSS2) guesses(hasPIN bool) (withPIN []bool) {
	p, err := tpm2.Unmarshal[tpm2.TPMTPublic](f.Public)
	uncounted := err == nil && p.ObjectAttributes.NoDA
	switch {
	case !hasPIN:
		return []bool{false}
	case f.EmptyAuth, f.Unsaid:
		return []bool{false, true}
	case uncounted:
		return []bool{true, false}
	}
	return []bool{true}
}

// wrongAuth reports whether the TPM refused one authorization value of a key or a counter, instead
// of any value, or of that of a hierarchy.
func wrongAuth(err error) bool {
	if errors.As(err, new(*PasswordError)) {
		return false
	}
	return errors.Is(err, tpm2.TPMRCAuthFail) || errors.Is(err, tpm2.TPMRCBadAuth)
}

// parentOf finds the storage key of a key file: a persistent one, or that of the owner
// hierarchy, made from a template. It returns nil for the store's own.
func (s *storage) parentOf(f *TSS2, template []byte) (*storageKey, error) {
	if f.Parent != tpm2.TPMRHOwner && f.Parent>>24 != 0x81 {
		return nil, fmt.Errorf("tpm: TSS2 key: its parent %#x is neither a persistent key nor the owner hierarchy: %w", uint32(f.Parent), errors.ErrUnsupported)
	}
	parent := &storageKey{}
	err := s.do(func() (err error) {
		if f.Parent != tpm2.TPMRHOwner {
			parent.Handle = handle(f.Parent)
			parent.Public, _, err = s.device.tpm.readPublic(uint32(f.Parent))
			return err
		}
		h, public, err := s.device.tpm.createPrimary(template)
		if err == nil {
			parent.Public = public
			s.device.resources.flush(h)
		}
		return err
	})
	if err == nil {
		err = checkParent(parent.Public)
	}
	switch {
	case bytes.Equal(nameOf(parent.Public), s.key.name):
		return nil, nil
	case errors.Is(err, keystore.ErrNotFound) && f.Parent == tpm2.TPMHandle(s.key.places[0]):
		return nil, nil // the store's storage key, which another program removed
	case err != nil:
		return nil, fmt.Errorf("tpm: TSS2 key: its parent %#x: %w", uint32(f.Parent), err)
	}
	return parent, nil
}

// primaries are the templates of the storage key below TPM_RH_OWNER: that of the specification of
// key files, then those of the tools that say nothing else in their files, tpm2_createprimary
// without attributes. For a persistent parent there is one, which is not used.
func (f *TSS2) primaries() (list [][]byte) {
	const emptyUnique = 1 // one of the two variants
	specified, other := tpm2.ECCSRKTemplate, tpm2.RSASRKTemplate
	if f.RSAParent {
		specified, other = other, specified
	}
	templates := []tpm2.TPMTPublic{specified}
	if f.Parent == tpm2.TPMRHOwner {
		for _, t := range []tpm2.TPMTPublic{specified, other} {
			t.ObjectAttributes.NoDA = false
			templates = append(templates, t)
		}
	}
	for _, t := range templates {
		list = append(list, tpm2.Marshal(variants(tpm2.Marshal(t))[emptyUnique]))
	}
	return list
}

// parent returns the storage key above a stored key. The caller must hold admin, or have
// exclusive use of the store.
func (p *provisionedKeys) parent(k storedKey) *object {
	if k.Adopted == nil || k.Adopted.Parent == nil {
		return p.storage.key
	}
	name := nameOf(k.Adopted.Parent.Public)
	if i := slices.IndexFunc(p.parents, func(o *object) bool { return bytes.Equal(o.name, name) }); i >= 0 {
		return p.parents[i]
	}
	o := newObject(nil, k.Adopted.Parent.Public, nil)
	if at := uint32(k.Adopted.Parent.Handle); at != 0 { // otherwise it is only in the owner hierarchy
		o.places = []uint32{at}
	}
	p.parents = append(p.parents, o)
	return o
}

// tryOut loads a key and uses it once: otherwise a wrong authorization value would fail
// later, and the TPM counts that. If the store's PIN is wrong for another program's key,
// that says nothing about the keys of the store.
func (p *provisionedKeys) tryOut(r *record) error {
	var before error
	err := p.storage.do(func() error {
		before = p.storage.refused
		defer p.storage.device.resources.unload(r.object)
		return p.storage.device.tpm.load(r.object)
	})
	if err != nil {
		return unloaded(err)
	}
	if err = p.useOnce(r); before == nil && wrongAuth(err) {
		err = errors.Join(err, p.storage.do(func() error { p.storage.refused = nil; return nil }))
	}
	return err
}

func (p *provisionedKeys) useOnce(r *record) error {
	v, err := p.version(r)
	if err != nil {
		return err
	}
	switch k := v.Key.(type) {
	case signer:
		_, err = k.Sign(nil, make([]byte, 32), crypto.SHA256)
	case macKey:
		_, err = k.Sum([]byte("tried out"))
	case cipherKey:
		_, err = k.Encrypt(make([]byte, 16), []byte("tried out"))
	case decrypter:
		err = tryDecrypter(k)
	}
	return err
}

func tryDecrypter(k decrypter) error {
	public, ok := k.public.(*rsa.PublicKey)
	if !ok {
		return fmt.Errorf("tpm: %v key: %w", k.algorithm, keystore.ErrWrongKey)
	}
	ciphertext, err := oaeptrial.Encrypt(public, []byte("tried out"))
	if err != nil {
		return err
	}
	_, err = k.Decrypt(nil, ciphertext, &rsa.OAEPOptions{Hash: crypto.SHA1})
	return err
}
