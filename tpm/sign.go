package tpm

import (
	"crypto"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/keystore"
)

type signer struct{ *key }

// Public returns the public key.
func (k signer) Public() crypto.PublicKey { return k.public }

// Sign signs a digest: PKCS #1 v1.5 with SHA-256 for RSA, and ASN.1 DER for
// ECDSA, with SHA-256 and for P-384 also SHA-384. The random bytes are the
// TPM's own.
func (k signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) (signature []byte, err error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	if opts == nil {
		return nil, fmt.Errorf("tpm: sign without a hash function: %w", errors.ErrUnsupported)
	}
	hash := opts.HashFunc()
	alg := tpm2.TPMAlgSHA256
	if k.algorithm == keystore.ECDSAP384 && hash == crypto.SHA384 {
		alg = tpm2.TPMAlgSHA384
	} else if hash != crypto.SHA256 || isPSS(opts) {
		return nil, fmt.Errorf("tpm: sign %v with %T of %v: %w", k.algorithm, opts, hash, errors.ErrUnsupported)
	}
	if len(digest) != hash.Size() {
		return nil, fmt.Errorf("tpm: digest of %d bytes for %v: %w", len(digest), hash, keystore.ErrBadData)
	}
	err = k.use(func(l loadedKey) (err error) {
		signature, err = l.sign(k.scheme(), alg, digest)
		return err
	})
	return signature, err
}

func (k signer) scheme() tpm2.TPMAlgID {
	if k.algorithm == keystore.ECDSAP256 || k.algorithm == keystore.ECDSAP384 {
		return tpm2.TPMAlgECDSA
	}
	return tpm2.TPMAlgRSASSA
}

// sign is TPM2_Sign (TPM 2.0 Library, Part 3, clause 20.2).
func (l loadedKey) sign(scheme, hash tpm2.TPMAlgID, digest []byte) ([]byte, error) {
	params := append16(nil, digest)
	params = binary.BigEndian.AppendUint16(params, uint16(scheme))
	params = binary.BigEndian.AppendUint16(params, uint16(hash))
	// An empty ticket: the TPM did not make the digest itself.
	params = binary.BigEndian.AppendUint16(params, uint16(tpm2.TPMSTHashCheck))
	params = binary.BigEndian.AppendUint32(params, handleNull)
	params = append(params, 0, 0)
	r, err := l.tpm.run(command{code: ccSign, handles: []entity{l.entity}, session: l.session, params: params})
	if err != nil {
		return nil, err
	}
	// The scheme and the hash again, followed by one or two numbers.
	if len(r.params) < 4 || binary.BigEndian.Uint16(r.params) != uint16(scheme) {
		return nil, fmt.Errorf("tpm: TPM2_Sign: %w", errAnswer())
	}
	x, rest, ok := cut16(r.params[4:])
	if scheme == tpm2.TPMAlgRSASSA && ok && len(rest) == 0 {
		return slices.Clone(x), nil
	}
	y, rest, ok2 := cut16(rest)
	if !ok || !ok2 || len(rest) > 0 {
		return nil, fmt.Errorf("tpm: TPM2_Sign: %w", errAnswer())
	}
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(x), new(big.Int).SetBytes(y)})
}
