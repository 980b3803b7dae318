package identity

import (
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Certify lets the AK say that a key is in its TPM, with qualifying data of 32
// bytes at most (TPM2_Certify). lend gives f the key and the TPM, as the With
// methods of package tpm do. It returns a TPMS_ATTEST and a TPMT_SIGNATURE, for
// the Certified method of an authority.
func (d *Device) Certify(lend func(f func(t transport.TPM, key tpm2.NamedHandle) error) error, qualifying []byte) (attest, signature []byte, err error) {
	if err := d.acquireReady(); err != nil {
		return nil, nil, err
	}
	defer d.mu.Unlock()
	err = lend(func(t transport.TPM, key tpm2.NamedHandle) (err error) {
		attest, signature, err = d.certify(t, key, qualifying)
		return err
	})
	return attest, signature, err
}
