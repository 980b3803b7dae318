package proof

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// UseDevice is the use of a digest that a manufacturer's key signs.
const UseDevice = "msl-hsm tpm enrolment 1: device"

// A DeviceProof is a statement by a key that the device's manufacturer certified (TCG TPM
// 2.0 Keys for Device Identity and Attestation). An initial attestation key (IAK) is
// restricted, and certifies that the AK is in the same TPM. An initial device identity
// (IDevID) signs anything that the device asks it to, so its statement is weaker.
type DeviceProof struct {
	Certificates [][]byte `json:"certificates"` // its own first, DER
	Key          []byte   `json:"key"`          // TPMT_PUBLIC
	Attest       []byte   `json:"attest,omitempty"`
	Signature    []byte   `json:"signature"` // TPMT_SIGNATURE, of Attest or, without it, of Signed
}

// Digest is the qualifying data of a DeviceProof. It covers its certificates, too.
func (d *DeviceProof) Digest(p *Proof) []byte {
	covered := DeviceProof{Certificates: d.Certificates, Key: d.Key}
	h := sha256.New()
	h.Write(p.Digest(UseDevice))
	h.Write(Encode(covered))
	return h.Sum(nil)
}

// Signed is what an IDevID signs: the Digest, or its hash if the key signs with another
// hash than SHA-256.
func (d *DeviceProof) Signed(key Public, p *Proof) []byte {
	digest := d.Digest(p)
	if _, hash := key.Signing(); hash == tpm2.TPMAlgSHA256 {
		return digest
	}
	return key.digest(digest)
}

// Restricted reports whether the key signs only what its TPM made.
func (d *DeviceProof) Restricted() bool {
	k, err := ParsePublic(d.Key)
	return err == nil && k.Area.ObjectAttributes.Restricted
}

// CheckMaker requires a signing key that cannot leave its TPM, such as one of the templates
// H-1 to H-4 (TCG TPM 2.0 Keys for Device Identity and Attestation): RSASSA, RSAPSS or ECDSA
// with SHA-256, SHA-384 or SHA-512.
func (p Public) CheckMaker() error {
	const what = "key of the device's maker"
	a := p.Area.ObjectAttributes
	if err := p.checkFixed(what, a.SignEncrypt && !a.Decrypt, "only for signatures"); err != nil {
		return err
	}
	hashes := []tpm2.TPMAlgID{tpm2.TPMAlgSHA256, tpm2.TPMAlgSHA384, tpm2.TPMAlgSHA512}
	if !slices.Contains(hashes, p.Area.NameAlg) {
		return Fail(ErrKey, "%s: name algorithm %#x", what, uint16(p.Area.NameAlg))
	}
	if scheme, _ := p.scheme(); scheme == tpm2.TPMAlgNull && a.Restricted || p.digest(nil) == nil {
		return Fail(ErrKey, "%s: its scheme is not RSASSA, RSAPSS or ECDSA with SHA-256, SHA-384 or SHA-512", what)
	}
	if key, ok := p.Key.(*ecdsa.PublicKey); ok && key.Params().BitSize < 256 {
		return Fail(ErrKey, "%s: its curve is smaller than P-256", what)
	}
	return nil
}

// checkDevice checks the signature of the manufacturer's key. The policy determines what
// its certificate is worth.
func (p *Proof) checkDevice(o *Offered) error {
	d := p.Device
	if d == nil {
		return nil
	}
	if len(d.Certificates) == 0 || len(d.Certificates) > MaxCertificates {
		return Fail(ErrMalformed, "wrong number of certificates of the device")
	}
	if err := checkParts(append([][]byte{d.Key, d.Signature}, d.Certificates...)...); err != nil {
		return err
	}
	key, err := ParsePublic(d.Key)
	if err != nil {
		return err
	}
	if err := key.CheckMaker(); err != nil {
		return err
	}
	if key.Area.ObjectAttributes.Restricted {
		return CheckCertify(key, o.AK, KeyProof{Attest: d.Attest, Signature: d.Signature}, d.Digest(p))
	}
	if len(d.Attest) > 0 {
		return Fail(ErrMalformed, "an unrestricted key cannot attest")
	}
	return checkTPMSignature(key, d.Signed(key, p), d.Signature)
}
