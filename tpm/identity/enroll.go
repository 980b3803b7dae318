package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// An Exchange sends a message to the authority, at most [MaxMessage] bytes, and
// returns its answer.
type Exchange func(ctx context.Context, request []byte) (response []byte, err error)

// Enroll proves the identity to an authority and keeps what it gives. It can be
// repeated at any time: what is complete stays so, and what waited for a person
// may be ready ([ErrPending]). A renewal that was interrupted is brought to its
// end. See [ErrPending] and its neighbours for what an authority says.
func (d *Device) Enroll(ctx context.Context, exchange Exchange, progress func(string)) error {
	if err := d.acquire(); err != nil {
		return err
	}
	defer d.mu.Unlock()
	if err := d.s.ready(); err != nil {
		return err
	}
	return d.apply(ctx, exchange, progress)
}

// Renew enrolls new keys, for which the enrolled one vouches. After an error the
// old ones are still in use, and Renew or Enroll go on with the same new ones.
func (d *Device) Renew(ctx context.Context, exchange Exchange, progress func(string)) error {
	if err := d.acquire(); err != nil {
		return err
	}
	defer d.mu.Unlock()
	if err := d.s.ready(); err != nil {
		return err
	}
	if d.s.Identity == nil {
		return fmt.Errorf("enroll: %w", ErrNotEnrolled)
	}
	if len(d.s.Next) == 0 {
		report(progress, "making new identity keys")
		var next []tpm.Blob
		for _, k := range d.s.Keys {
			b, err := d.create(k.Algorithm, false)
			if err != nil {
				return cleared(err)
			}
			next = append(next, b)
		}
		if err := d.save(func(s *state) { s.Next = next }); err != nil {
			return err
		}
	}
	return d.apply(ctx, exchange, progress)
}

// apply goes through the exchange, and once more if its challenge expired.
func (d *Device) apply(ctx context.Context, exchange Exchange, progress func(string)) error {
	r, err := d.converse(ctx, exchange, progress)
	if errors.Is(err, ErrStale) {
		r, err = d.converse(ctx, exchange, progress)
	}
	if err == nil {
		err = d.accept(r)
	}
	if err != nil && !fromAuthority(err) {
		return err
	}
	last := outcome{Time: d.now(), State: proof.StateEnrolled}
	if err != nil {
		last.State = proof.FaultWord(err)
	}
	return errors.Join(err, d.save(func(s *state) { s.Last = &last }))
}

// fromAuthority reports whether an error is an answer that Status should show.
func fromAuthority(err error) bool {
	for _, kind := range []error{ErrPending, ErrRejected, ErrRevoked, ErrKeyRevoked, ErrPolicy, ErrEKCertificate, ErrRenewal} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// keys are those that the exchange is about.
func (d *Device) keys() []tpm.Blob {
	if len(d.s.Next) > 0 {
		return d.s.Next
	}
	return d.s.Keys
}

func (d *Device) converse(ctx context.Context, exchange Exchange, progress func(string)) (proof.Result, error) {
	b, err := d.begin()
	if err != nil {
		return proof.Result{}, err
	}
	report(progress, "asking for a challenge")
	answer, err := exchange(ctx, proof.Encode(b))
	if err != nil {
		return proof.Result{}, fmt.Errorf("enroll: exchange with the authority: %w", err)
	}
	c, err := readChallenge(answer)
	if err != nil {
		return proof.Result{}, err
	}
	report(progress, "proving the identity")
	p, err := d.prove(b, c)
	if err != nil {
		return proof.Result{}, err
	}
	report(progress, "waiting for the authority")
	answer, err = exchange(ctx, proof.Encode(p))
	if err != nil {
		return proof.Result{}, fmt.Errorf("enroll: exchange with the authority: %w", err)
	}
	return proof.ParseResult(answer)
}

func readChallenge(answer []byte) (proof.Challenge, error) {
	kind, err := proof.MessageType(answer)
	if err != nil {
		return proof.Challenge{}, err
	}
	if kind == proof.TypeResult {
		if _, err := proof.ParseResult(answer); err != nil {
			return proof.Challenge{}, err
		}
	}
	return proof.Parse[proof.Challenge](answer, proof.TypeChallenge)
}

func (d *Device) begin() (proof.Begin, error) {
	b := proof.Begin{Type: proof.TypeBegin, Version: proof.Version, EK: d.s.EK.Public, AK: d.s.AK.Public}
	for _, k := range d.keys() {
		b.Keys = append(b.Keys, k.Public)
	}
	err := d.do(func(t transport.TPM) (err error) {
		b.EKCertificates, err = readCertificates(t, d.s.EK.Kind)
		return err
	})
	return b, err
}

// prove opens the challenge and lets the keys sign.
func (d *Device) prove(b proof.Begin, c proof.Challenge) (proof.Proof, error) {
	p := proof.Proof{Type: proof.TypeProof, Version: proof.Version, Begin: b, Challenge: c}
	err := d.do(func(t transport.TPM) (err error) {
		p.Secret, err = d.activate(t, c)
		return err
	})
	if err != nil {
		return p, err
	}
	for _, k := range d.keys() {
		kp, err := d.proveKey(k, p.Digest(proof.UseCertify))
		if err != nil {
			return p, err
		}
		p.Keys = append(p.Keys, kp)
	}
	if len(d.PCRs) > 0 {
		q, err := d.quote(p.Digest(proof.UseQuote), d.PCRs)
		if err != nil {
			return p, err
		}
		p.Quote = &q
	}
	if len(d.s.Next) == 0 {
		return p, nil
	}
	p.Renewal, err = d.vouch(p.Digest(proof.UseRenewal))
	return p, err
}

// activate lets the TPM open a credential (TPM 2.0 Library part 3, section
// 12.5): it does so only if the EK and the AK are its own.
func (d *Device) activate(t transport.TPM, c proof.Challenge) (secret []byte, err error) {
	err = d.withEK(t, func(ek tpm2.NamedHandle) error {
		return d.use(t, *d.s.AK, func(ak tpm2.NamedHandle) error {
			session, end, err := ekPolicy(t, d.s.EK.Kind)
			if err != nil {
				return err
			}
			defer end()
			r, err := tpm2.ActivateCredential{
				ActivateHandle: authorized(ak),
				KeyHandle:      tpm2.AuthHandle{Handle: ek.Handle, Name: ek.Name, Auth: session},
				CredentialBlob: tpm2.TPM2BIDObject{Buffer: c.Credential},
				Secret:         tpm2.TPM2BEncryptedSecret{Buffer: c.Seed},
			}.Execute(t)
			if err != nil {
				return notActivated(err)
			}
			secret = r.CertInfo.Buffer
			return nil
		})
	})
	return secret, err
}

// notActivated tells a credential for another TPM from a TPM in trouble.
func notActivated(err error) error {
	for _, rc := range []tpm2.TPMRC{tpm2.TPMRCIntegrity, tpm2.TPMRCValue, tpm2.TPMRCSize, tpm2.TPMRCFailure, tpm2.TPMRCInsufficient, tpm2.TPMRCECCPoint} {
		if errors.Is(err, rc) {
			return proof.Fail(ErrActivation, "the challenge is not for this TPM and its AK: %w", tpm.CommandError("TPM2_ActivateCredential", err))
		}
	}
	return tpm.CommandError("TPM2_ActivateCredential", err)
}

// signatureAlgorithm is what an LDevID signs requests with.
func signatureAlgorithm(key crypto.PublicKey) x509.SignatureAlgorithm {
	if _, ok := key.(*ecdsa.PublicKey); ok {
		return x509.ECDSAWithSHA256
	}
	return x509.SHA256WithRSA
}

func (d *Device) proveKey(k tpm.Blob, qualifying []byte) (p proof.KeyProof, err error) {
	err = d.do(func(t transport.TPM) error {
		return d.use(t, k, func(key tpm2.NamedHandle) (err error) {
			p.Attest, p.Signature, err = d.certify(t, key, qualifying)
			return err
		})
	})
	if err != nil {
		return p, err
	}
	s, err := d.signer(k)
	if err != nil {
		return p, err
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "LDevID"}, SignatureAlgorithm: signatureAlgorithm(s.Public())}
	if p.Request, err = x509.CreateCertificateRequest(rand.Reader, template, s); err != nil {
		return p, fmt.Errorf("enroll: certificate request: %w", err)
	}
	return p, nil
}

// vouch signs with the key that is enrolled.
func (d *Device) vouch(digest []byte) (*proof.Renewal, error) {
	s, err := d.signer(d.s.Keys[0])
	if err != nil {
		return nil, err
	}
	signature, err := s.Sign(nil, digest, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	return &proof.Renewal{Key: d.s.Keys[0].Public, Signature: signature}, nil
}

// accept checks what the authority gave, and makes it the identity in one write.
func (d *Device) accept(r proof.Result) error {
	keys := d.keys()
	if r.Name == "" || len(r.Certificates) > 0 && len(r.Certificates) != len(keys) {
		return proof.Fail(ErrMalformed, "%d certificates for %d keys", len(r.Certificates), len(keys))
	}
	for i, der := range r.Certificates {
		if err := checkIssued(der, r.CA, keys[i]); err != nil {
			return err
		}
	}
	return d.save(func(s *state) {
		s.Keys, s.Next = keys, nil
		s.Identity = &deviceResult{Name: r.Name, Enrolled: d.now(), Certificates: r.Certificates, CA: r.CA}
	})
}

func checkIssued(der, ca []byte, key tpm.Blob) error {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return proof.Fail(ErrMalformed, "certificate: %w", err)
	}
	p, err := proof.ParsePublic(key.Public)
	if err != nil {
		return err
	}
	if !proof.SameKey(c.PublicKey, p.Key) {
		return proof.Fail(ErrMalformed, "the certificate is for another key")
	}
	issuer, err := x509.ParseCertificate(ca)
	if err != nil {
		return proof.Fail(ErrMalformed, "certificate of the authority: %w", err)
	}
	if err := c.CheckSignatureFrom(issuer); err != nil {
		return proof.Fail(ErrMalformed, "certificate: %w", err)
	}
	return nil
}
