package enroll

import (
	"context"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A Use is the purpose of a key certified outside an enrollment.
type Use int

// The uses of certified keys.
const (
	Storage    Use = iota + 1 // parent of imported keys: restricted decryption
	Decryption                // RSA decryption of what a peer encrypts
)

// Certified checks that the AK of the enrolled device with a name certified a key with
// this use and qualifying data: the key is in the TPM of the device and cannot leave it.
// area is its TPMT_PUBLIC, attest a TPMS_ATTEST, and signature a TPMT_SIGNATURE. An
// unknown name is [ErrUnknown], one that is not enrolled [ErrState].
func (l *ledger) Certified(ctx context.Context, name string, use Use, area, attest, signature, qualifying []byte) error {
	r, err := l.Named(ctx, name)
	if err != nil {
		return err
	}
	if r.State != Enrolled || r.Evidence == nil {
		return proof.Fail(ErrState, "device %q is %s", name, r.State)
	}
	p, err := proof.Parse[proof.Proof](r.Evidence.Proof, proof.TypeProof)
	if err != nil {
		return err
	}
	ak, err := proof.ParsePublic(p.Begin.AK)
	if err != nil {
		return err
	}
	key, err := proof.ParsePublic(area)
	if err != nil {
		return err
	}
	if err := checkUse(key, use); err != nil {
		return err
	}
	return proof.CheckCertify(ak, key, proof.KeyProof{Attest: attest, Signature: signature}, qualifying)
}

func checkUse(key proof.Public, use Use) error {
	switch use {
	case Storage:
		return key.CheckStorage()
	case Decryption:
		return key.CheckDecryption()
	}
	return proof.Fail(ErrKey, "unknown use %d", use)
}
