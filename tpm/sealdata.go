package tpm

import (
	"bytes"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// SealData returns a blob of the bytes of a session key that is used outside the TPM,
// because the TPM lacks the algorithm. Only [UnsealData] on this TPM, with the same
// algorithm and context, recovers them; see [Store.Seal]. The caller must wipe raw.
func SealData(s *Store, a keystore.Algorithm, raw, context []byte) ([]byte, error) {
	if err := s.storage.open(); err != nil {
		return nil, err
	}
	if !sealable(a) || len(raw) != a.Size() {
		return nil, fmt.Errorf("tpm: seal %d bytes as %v: %w", len(raw), a, keystore.ErrBadData)
	}
	var o *object
	err := s.storage.do(func() (err error) {
		o, err = s.storage.device.tpm.create(s.storage.key, tpm2.Marshal(dataTemplate()), nil, raw)
		return err
	})
	if err != nil {
		return nil, err
	}
	return sealObject(s, a, o, context)
}

// UnsealData passes the bytes that SealData sealed to use, which must not keep them: they
// are wiped when it returns. A blob of another algorithm, context or TPM is
// [keystore.ErrForeign].
func UnsealData(s *Store, a keystore.Algorithm, blob, context []byte, use func(raw []byte) error) error {
	o, err := openSealed(s, a, blob, context)
	if err != nil {
		return err
	}
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](o.public)
	if err != nil {
		return errForeign(a)
	}
	template := dataTemplate()
	template.Unique = public.Unique
	if !bytes.Equal(tpm2.Marshal(template), o.public) {
		return errForeign(a)
	}
	var raw *lockedmem.Buffer
	err = s.storage.use(o, s.storage.open, func(l loadedKey) error {
		b, err := l.unseal()
		raw = lockedmem.Move(b)
		return err
	})
	defer raw.Close()
	s.storage.device.release(o)
	if err == nil && raw.Len() != a.Size() {
		err = errForeign(a)
	}
	if err != nil {
		return err
	}
	return use(raw.Bytes())
}

// unseal is TPM2_Unseal (TPM 2.0 Library, Part 3, clause 12.7), with the response
// encrypted.
func (l loadedKey) unseal() ([]byte, error) {
	r, err := l.tpm.run(command{code: ccUnseal, handles: []entity{l.entity}, session: l.session, secretOut: true})
	return first(ccUnseal, r, err)
}

// dataTemplate returns the public area of data protected by the TPM (Part 1, clause
// 27.5.1): a keyed hash object without a scheme.
func dataTemplate() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, UserWithAuth: true, NoDA: true},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{
			Scheme: tpm2.TPMTKeyedHashScheme{Scheme: tpm2.TPMAlgNull},
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BDigest{}),
	}
}
