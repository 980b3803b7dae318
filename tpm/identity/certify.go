package identity

import (
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Certify lets the AK certify that a key is in its TPM (TPM2_Certify), with at most 32
// bytes of qualifying data. lend passes the key and the TPM to its function, like the
// With methods of package tpm. Certify returns a TPMS_ATTEST and a TPMT_SIGNATURE, for
// Authority.Certified of package enroll.
func (d *Device) Certify(lend func(f func(t transport.TPM, key tpm2.NamedHandle) error) error, qualifying []byte) (attest, signature []byte, err error) {
	k, err := d.readReady()
	if err != nil {
		return nil, nil, err
	}
	err = lend(func(t transport.TPM, key tpm2.NamedHandle) (err error) {
		attest, signature, err = k.certify(t, key, qualifying)
		return err
	})
	return attest, signature, err
}
