package enroll

import (
	"cmp"
	"crypto/x509"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A deviceClaim is what the manufacturer's certificate of a device is worth.
type deviceClaim struct {
	path            // to a root of the policy
	restricted bool // the key is
	proves     bool // that the AK is in the device's TPM
	name       string
	chip       string // the TPM that it names, or empty
	unused     string // why it counts as absent
}

// remark is what the certificate adds to the reason why a device is not accepted.
func (c *deviceClaim) remark() string {
	switch {
	case c.unused != "":
		return "; the certificate of the device's maker is not accepted: " + c.unused
	case c.chain != nil && !c.proves && c.restricted:
		return "; the certificate of the device's maker, for " + c.name + ", does not say that its key is restricted " +
			"(policy 2.23.133.11.1.3 or usage 2.23.133.8.3), so it does not prove which TPM has the keys"
	case c.chain != nil && !c.proves:
		return "; its IDevID belongs to " + c.name + ", which does not prove which TPM has the keys"
	}
	return ""
}

// claimDevice judges the manufacturer's certificate that a device sent, if any. Its proof
// was checked before.
func (p *Policy) claimDevice(d *proof.DeviceProof, now time.Time) (c deviceClaim) {
	if d == nil || p.Devices.Roots == nil {
		return c
	}
	certificate, err := deviceCertificate(d)
	if err == nil {
		c.chip = certificate.chip()
		c.name = cmp.Or(writtenName(certificate.RawSubject), c.chip, "a device without a name")
		c.path, err = p.Devices.verify(certificate, d.Certificates[1:], now)
	}
	c.restricted = d.Restricted()
	c.proves = err == nil && c.restricted && certificate.attests()
	if err == nil && c.expired() && !c.proves {
		err = proof.Fail(ErrEKCertificate, "it, or a certificate above it, has expired")
	}
	if err != nil {
		c.path, c.unused = path{}, reason(err)
	}
	return c
}

// deviceCertificate reads the manufacturer's certificate, which must be for the key that
// signed. Its subject alternative name, which may be critical, contains the serial number
// of the hardware in a form that the standard library does not support (RFC 4108 section
// 5).
func deviceCertificate(d *proof.DeviceProof) (e EKCertificate, err error) {
	key, err := proof.ParsePublic(d.Key)
	if err == nil {
		e, err = readCertificate(d.Certificates[0])
	}
	if err != nil {
		return e, err
	}
	e.understand(subjectAltName())
	switch {
	case !keystore.SamePublic(e.PublicKey, key.Key):
		return e, proof.Fail(ErrEKCertificate, "it is for another key")
	case e.IsCA:
		return e, proof.Fail(ErrEKCertificate, "it is a CA certificate")
	case e.KeyUsage != 0 && e.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) == 0:
		return e, proof.Fail(ErrEKCertificate, "its key usage does not permit signatures")
	}
	return e, nil
}

// verifyDevice checks the chain of the manufacturer's certificate of the device, if the
// record has one.
func (v Verifier) verifyDevice(e *Evidence, p *proof.Proof) error {
	if len(e.DeviceChain) == 0 {
		return nil
	}
	if p.Device == nil {
		return proof.Fail(ErrEKCertificate, "the evidence has no certificate of the device's maker")
	}
	c, err := deviceCertificate(p.Device)
	if err != nil {
		return err
	}
	if string(c.Raw) != string(e.DeviceChain[0]) {
		return proof.Fail(ErrEKCertificate, "the evidence has a different certificate of the device's maker")
	}
	at := v.Time
	if at.IsZero() {
		at = e.DeviceExpired
	}
	if at.IsZero() {
		at = e.Checked
	}
	return verifyPath(c, e.DeviceChain, v.DeviceRoots, at)
}
