package enroll

import (
	"context"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/tpm"
)

// Certify lets the AK say that a key is in its TPM, with qualifying data of 32
// bytes at most (TPM2_Certify). lend gives f the key and the TPM, as the With
// methods of package tpm do. It returns a TPMS_ATTEST and a TPMT_SIGNATURE, for
// [Authority.Certified].
func (d *Device) Certify(lend func(f func(t transport.TPM, key tpm2.NamedHandle) error) error, qualifying []byte) (attest, signature []byte, err error) {
	if err := d.acquire(); err != nil {
		return nil, nil, err
	}
	defer d.mu.Unlock()
	if err := d.s.ready(); err != nil {
		return nil, nil, err
	}
	err = lend(func(t transport.TPM, key tpm2.NamedHandle) error {
		return d.s.AK.use(t, func(ak tpm2.NamedHandle) error {
			r, err := tpm2.Certify{
				ObjectHandle: authorised(key), SignHandle: authorised(ak),
				QualifyingData: tpm2.TPM2BData{Buffer: qualifying}, InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
			}.Execute(t)
			if err != nil {
				return tpm.CommandError("TPM2_Certify", err)
			}
			attest, signature = r.CertifyInfo.Bytes(), tpm2.Marshal(r.Signature)
			return nil
		})
	})
	return attest, signature, err
}

// A Use is what a key that is certified outside an enrolment is for.
type Use int

// The uses.
const (
	Storage    Use = iota + 1 // parent of imported keys: restricted decryption
	Decryption                // RSA decryption of what a peer encrypts
)

// Certified checks that the AK of an enrolled device, by the name of the device,
// certified a key (TPMT_PUBLIC) of that use with that qualifying data: the device
// is in possession of its TPM, and the key stays in it. A name that is not
// enrolled, or not any more, is [ErrUnknown] or [ErrState].
func (a *Authority) Certified(ctx context.Context, name string, use Use, area, attest, signature, qualifying []byte) error {
	r, err := a.Named(ctx, name)
	if err != nil {
		return err
	}
	if r.State != Enrolled || r.Evidence == nil {
		return fail(ErrState, "device %q is %s", name, r.State)
	}
	p, err := parse[proof](r.Evidence.Proof, typeProof)
	if err != nil {
		return err
	}
	ak, err := parsePublic(p.Begin.AK)
	if err != nil {
		return err
	}
	key, err := parsePublic(area)
	if err != nil {
		return err
	}
	if err := key.checkUse(use); err != nil {
		return err
	}
	return checkCertify(ak, key, keyProof{Attest: attest, Signature: signature}, qualifying)
}

func (p public) checkUse(use Use) error {
	a := p.area.ObjectAttributes
	switch use {
	case Storage:
		return p.checkFixed("storage key", a.Restricted && a.Decrypt && !a.SignEncrypt, "restricted and for decryption alone")
	case Decryption:
		return p.checkFixed("decryption key", !a.Restricted && a.Decrypt && !a.SignEncrypt, "unrestricted and for decryption alone")
	}
	return fail(ErrKey, "it has no use %d", use)
}

// Named finds the record of a device by its name: [ErrUnknown] if there is none.
func (a *Authority) Named(ctx context.Context, name string) (r Record, err error) {
	err = a.c.Store.View(ctx, func(tx Tx) error {
		id, err := tx.ByName(name)
		if err == nil {
			r, err = tx.Get(id)
		}
		return err
	})
	return r, err
}
