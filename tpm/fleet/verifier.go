package fleet

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// A Verifier checks what requesters of the key exchange TPM_IMPORT prove with the
// attestation keys of enrolled devices. It implements keyx.TPMVerifier.
type Verifier struct{ Authority *Authority }

var _ keyx.TPMVerifier = Verifier{}

// verdicts returns the errors that are a verdict on what a device sent. Other errors mean
// that nothing was judged.
func verdicts() []error {
	return []error{
		enroll.ErrUnknown, enroll.ErrState, enroll.ErrMalformed, enroll.ErrKey,
		enroll.ErrAttestation, enroll.ErrSignature, enroll.ErrNonce,
	}
}

// Certified implements keyx.TPMVerifier. The identity may be any that the device
// has: by its key, its certificate or its pre-shared keys.
func (v Verifier) Certified(ctx context.Context, identity string, use keyx.TPMUse, c keyx.TPMCertified, qualifying []byte) error {
	uses := map[keyx.TPMUse]enroll.Use{keyx.TPMStorage: enroll.Storage, keyx.TPMDecrypt: enroll.Decryption}
	name := deviceName(identity)
	err := v.Authority.Certified(ctx, name, uses[use], c.Public, c.Attest, c.Signature, qualifying)
	if device, ok := strings.CutSuffix(name, pskSuffix); ok && errors.Is(err, enroll.ErrUnknown) {
		err = v.Authority.Certified(ctx, device, uses[use], c.Public, c.Attest, c.Signature, qualifying)
	}
	judged := func(verdict error) bool { return errors.Is(err, verdict) }
	if err == nil || slices.ContainsFunc(verdicts(), judged) {
		return err
	}
	return msl.Failure(msl.ErrInternalException, "find the attestation key", err)
}

// Duplicate implements keyx.TPMVerifier.
func (Verifier) Duplicate(storage []byte, a keystore.Algorithm, raw []byte) (keystore.Duplicated, error) {
	return tpm.Duplicate(storage, a, raw)
}

// EncryptOAEP implements keyx.TPMVerifier. A public area (TPMT_PUBLIC) of a key that
// is not an RSA key is keystore.ErrBadData.
func (Verifier) EncryptOAEP(public, raw []byte) ([]byte, error) {
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		return nil, err
	}
	key, err := tpm2.Pub(*area)
	if err != nil {
		return nil, err
	}
	to, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the decryption key is a %T: %w", key, keystore.ErrBadData)
	}
	return rsa.EncryptOAEP(sha1.New(), rand.Reader, to, raw, nil)
}
