package fleet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// A StorageProof is the storage key of a device's TPM, certified by the device's
// attestation key. It is written with encoding/json and read with
// [ParseStorageProof]; nothing in it is secret.
type StorageProof struct {
	Public    []byte          `json:"public"`    // TPMT_PUBLIC
	Attest    []byte          `json:"attest"`    // TPMS_ATTEST
	Signature []byte          `json:"signature"` // TPMT_SIGNATURE
	Nonce     enroll.HexBytes `json:"nonce"`     // given to the device; informational
}

// ParseStorageProof reads a StorageProof, a JSON object. An unknown member is an error.
// It checks nothing else: see [CertifiedKey.Check].
func ParseStorageProof(text []byte) (*StorageProof, error) { return parse(text, &StorageProof{}) }

func parse[T any](text []byte, v *T) (*T, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return nil, err
	}
	return v, nil
}

// CheckNonce refuses a nonce that is not 16 to 32 bytes long.
func CheckNonce(nonce []byte) error {
	if len(nonce) < 16 || len(nonce) > 32 {
		return fmt.Errorf("a nonce must be 16 to 32 bytes long, not %d", len(nonce))
	}
	return nil
}

// ProveStorageKey makes the attestation key certify the TPM's storage key with a nonce of
// 16 to 32 bytes from the server's operator, who chooses a new random one each time. The
// errors are those of [CheckNonce] and of identity.Device.Certify.
func (d *Device) ProveStorageKey(nonce []byte) (*StorageProof, error) {
	if err := CheckNonce(nonce); err != nil {
		return nil, err
	}
	_, public, err := d.Store.StorageKey()
	if err != nil {
		return nil, err
	}
	p := &StorageProof{Public: tpm2.Marshal(public), Nonce: nonce}
	p.Attest, p.Signature, err = d.Identity.Certify(d.Store.WithStorageKey, provisioning(nonce))
	if err != nil {
		return nil, err
	}
	return p, nil
}

// provisioning is the qualifying data that the attestation key signs with the storage
// key.
func provisioning(nonce []byte) []byte {
	sum := sha256.Sum256(append([]byte("MSL PSK provisioning 1"), nonce...))
	return sum[:]
}

// A CertifiedKey is a storage key that a device claims is in its TPM: a [StorageProof]
// with the name of the device and the nonce given to it. It contains everything needed
// for the check, for a process that has the authority.
type CertifiedKey struct {
	Device                                string // name
	Public, Attest, Signature, Qualifying []byte
}

// Certified returns the claim that the proof is from that device, and was made for that
// nonce. The nonce must not be taken from the proof.
func (p *StorageProof) Certified(device string, nonce []byte) CertifiedKey {
	return CertifiedKey{device, p.Public, p.Attest, p.Signature, provisioning(nonce)}
}

// Check checks that the attestation key of the device, which is enrolled and not
// revoked, certified this storage key for the nonce. If it did, the key is in the
// device's TPM and cannot leave it. The errors are those of
// [enroll.Authority.Certified].
func (k CertifiedKey) Check(ctx context.Context, a *Authority) error {
	return a.Certified(ctx, k.Device, enroll.Storage, k.Public, k.Attest, k.Signature, k.Qualifying)
}
