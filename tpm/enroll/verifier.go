package enroll

import (
	"bytes"
	"crypto/x509"
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A Verifier checks the records of an authority without trusting them, and without the
// device.
type Verifier struct {
	// Roots must contain the root of the EK certificate, if the record has a
	// chain to one.
	Roots *x509.CertPool
	// DeviceRoots is the same for the certificate from the device's manufacturer.
	DeviceRoots *x509.CertPool
	// CA, if set, must have signed the certificates of the record.
	CA *x509.Certificate
	// Time is when EK certificates must be valid; the zero time means when the authority
	// checked them, or before they expired if it accepted that.
	Time time.Time
}

// Verify checks that the evidence of a record proves what the record says: that the keys
// have the right kinds and attributes, that the AK certified the LDevIDs over the whole
// exchange, that each LDevID signed its request, and that these are the keys in use and
// those of their certificates. Any change to the evidence is [ErrEvidence].
//
// That the secret of the challenge could only be known with the EK cannot be checked
// later: for that, Verify relies on the authority.
func (v Verifier) Verify(r *Record) error {
	if r.Evidence == nil {
		return proof.Fail(ErrEvidence, "EK hash %s has none", r.ID)
	}
	if err := v.verify(r); err != nil {
		return proof.Fail(ErrEvidence, "EK hash %s: %w", r.ID, err)
	}
	return nil
}

func (v Verifier) verify(r *Record) error {
	p, err := proof.Parse[proof.Proof](r.Evidence.Proof, proof.TypeProof)
	if err != nil {
		return err
	}
	o, err := p.Open()
	if err != nil {
		return err
	}
	if id := ID(o.EKHash); id != r.ID {
		return proof.Fail(ErrKey, "the evidence is for EK hash %s", id)
	}
	if err := v.verifyChain(r, &p.Begin, &o); err != nil {
		return err
	}
	if err := v.verifyDevice(r.Evidence, &p); err != nil {
		return err
	}
	if r.State != Enrolled {
		return nil
	}
	return v.verifyKeys(r, &o)
}

// verifyChain checks the chain to a root, if the record has one.
func (v Verifier) verifyChain(r *Record, b *proof.Begin, o *proof.Offered) error {
	chain := r.Evidence.Chain
	if len(chain) == 0 {
		return nil
	}
	if len(b.EKCertificates) == 0 {
		return proof.Fail(ErrEKCertificate, "the evidence has no EK certificate")
	}
	ek, err := ParseEKCertificate(b.EKCertificates[0])
	if err != nil {
		return err
	}
	if err := ek.checkKey(o); err != nil {
		return err
	}
	if !bytes.Equal(ek.Raw, chain[0]) {
		return proof.Fail(ErrEKCertificate, "the evidence has a different EK certificate")
	}
	at := v.Time
	if at.IsZero() {
		at = r.Evidence.Expired
	}
	if at.IsZero() {
		at = r.Evidence.Checked
	}
	return verifyPath(ek, chain, v.Roots, at)
}

// verifyPath checks that a recorded chain leads from the certificate to a root. The
// intermediate certificates are those of the record.
func verifyPath(ek EKCertificate, recorded [][]byte, roots *x509.CertPool, at time.Time) error {
	if roots == nil { // otherwise the standard library would use the system's
		return proof.Fail(ErrEKCertificate, "no roots are configured")
	}
	n, root := newNetwork(), ek.Certificate
	for _, der := range recorded[1:] {
		var err error
		if root, err = proof.ParseCertificate(der); err != nil {
			return proof.Fail(ErrEKCertificate, "a certificate above it: %w", err)
		}
		n.offer(plainly(root))
	}
	if err := isRoot(root, roots, at); err != nil {
		return err
	}
	n.roots.AddCert(plainly(root))
	chains, err := n.paths(plainly(ek.Certificate), at)
	if err != nil {
		return err
	}
	for _, chain := range chains {
		if sameLists(rawChain(chain), recorded) {
			return nil
		}
	}
	return errOtherPath()
}

// isRoot returns nil for a root that is valid at a time.
func isRoot(c *x509.Certificate, roots *x509.CertPool, at time.Time) error {
	n := newNetwork()
	n.roots = roots
	chains, err := n.paths(c, at)
	if err == nil && len(chains[0]) > 1 { // below another root
		return errOtherPath()
	}
	return err
}

func errOtherPath() error {
	return proof.Fail(ErrEKCertificate, "it does not lead to a root along the recorded chain")
}

// verifyKeys checks that the keys and certificates in use are those of the
// evidence.
func (v Verifier) verifyKeys(r *Record, o *proof.Offered) error {
	if !sameLists(r.current(), o.Names()) {
		return proof.Fail(ErrKey, "the evidence is for keys other than those in use")
	}
	for i := range r.Keys {
		k := &r.Keys[i]
		p, err := proof.ParsePublic(k.Public)
		if err != nil {
			return err
		}
		if !bytes.Equal(p.Name, k.Name) {
			return proof.Fail(ErrKey, "key %s has a different public area", k.Name)
		}
		if err := v.verifyCertificates(r, k, p); err != nil {
			return err
		}
	}
	return nil
}

func (v Verifier) verifyCertificates(r *Record, k *Key, p proof.Public) error {
	for _, c := range r.Certificates {
		if !bytes.Equal(c.Key, k.Name) {
			continue
		}
		x, err := x509.ParseCertificate(c.DER)
		if err != nil {
			return proof.Fail(ErrKey, "certificate %s: %w", c.Serial, err)
		}
		if serialText(x) != c.Serial || !keystore.SamePublic(x.PublicKey, p.Key) {
			return proof.Fail(ErrKey, "certificate %s is for another key", c.Serial)
		}
		if v.CA != nil {
			if err := x.CheckSignatureFrom(v.CA); err != nil {
				return proof.Fail(ErrSignature, "certificate %s: %w", c.Serial, err)
			}
		}
	}
	return nil
}

func sameLists(a, b [][]byte) bool { return slices.EqualFunc(a, b, bytes.Equal) }
