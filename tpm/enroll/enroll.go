package enroll

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/tpm"
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

// Renew enrols new keys, for which the enrolled one vouches. After an error the
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
		var next []blob
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
	last := outcome{Time: d.now(), State: stateEnrolled}
	if err != nil {
		last.State = faultWord(err)
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
func (d *Device) keys() []blob {
	if len(d.s.Next) > 0 {
		return d.s.Next
	}
	return d.s.Keys
}

func (d *Device) converse(ctx context.Context, exchange Exchange, progress func(string)) (result, error) {
	b, err := d.begin()
	if err != nil {
		return result{}, err
	}
	report(progress, "asking for a challenge")
	answer, err := exchange(ctx, encode(b))
	if err != nil {
		return result{}, fmt.Errorf("enroll: exchange with the authority: %w", err)
	}
	c, err := readChallenge(answer)
	if err != nil {
		return result{}, err
	}
	report(progress, "proving the identity")
	p, err := d.prove(b, c)
	if err != nil {
		return result{}, err
	}
	report(progress, "waiting for the authority")
	answer, err = exchange(ctx, encode(p))
	if err != nil {
		return result{}, fmt.Errorf("enroll: exchange with the authority: %w", err)
	}
	return parseResult(answer)
}

func readChallenge(answer []byte) (challenge, error) {
	kind, err := messageType(answer)
	if err != nil {
		return challenge{}, err
	}
	if kind == typeResult {
		if _, err := parseResult(answer); err != nil {
			return challenge{}, err
		}
	}
	return parse[challenge](answer, typeChallenge)
}

func (d *Device) begin() (begin, error) {
	b := begin{Type: typeBegin, Version: messageVersion, EK: d.s.EK.Public, AK: d.s.AK.Public}
	for _, k := range d.keys() {
		b.Keys = append(b.Keys, k.Public)
	}
	err := d.tpm.Do(func(t transport.TPM) (err error) {
		b.EKCertificates, err = readCertificates(t, d.s.EK.Kind)
		return err
	})
	return b, err
}

// prove opens the challenge and lets the keys sign.
func (d *Device) prove(b begin, c challenge) (proof, error) {
	p := proof{Type: typeProof, Version: messageVersion, Begin: b, Challenge: c}
	err := d.tpm.Do(func(t transport.TPM) (err error) {
		p.Secret, err = d.activate(t, c)
		return err
	})
	if err != nil {
		return p, err
	}
	for _, k := range d.keys() {
		kp, err := d.proveKey(k, p.digest(useCertify))
		if err != nil {
			return p, err
		}
		p.Keys = append(p.Keys, kp)
	}
	if len(d.PCRs) > 0 {
		q, err := d.quote(p.digest(useQuote), d.PCRs)
		if err != nil {
			return p, err
		}
		p.Quote = &q
	}
	if len(d.s.Next) == 0 {
		return p, nil
	}
	p.Renewal, err = d.vouch(p.digest(useRenewal))
	return p, err
}

// activate lets the TPM open a credential (TPM 2.0 Library part 3, section
// 12.5): it does so only if the EK and the AK are its own.
func (d *Device) activate(t transport.TPM, c challenge) (secret []byte, err error) {
	err = d.withEK(t, func(ek tpm2.NamedHandle) error {
		return d.s.AK.use(t, func(ak tpm2.NamedHandle) error {
			session, end, err := ekPolicy(t, d.s.EK.Kind)
			if err != nil {
				return err
			}
			defer end()
			r, err := tpm2.ActivateCredential{
				ActivateHandle: authorised(ak),
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
			return fail(ErrActivation, "the challenge is not for this TPM and its AK: %w", tpm.CommandError("TPM2_ActivateCredential", err))
		}
	}
	return tpm.CommandError("TPM2_ActivateCredential", err)
}

func (d *Device) proveKey(k blob, qualifying []byte) (p keyProof, err error) {
	err = d.tpm.Do(func(t transport.TPM) (err error) {
		p, err = d.s.AK.certify(t, &k, qualifying)
		return err
	})
	if err != nil {
		return p, err
	}
	s, err := d.signer(k)
	if err != nil {
		return p, err
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "LDevID"}, SignatureAlgorithm: signatureAlgorithm(s.key)}
	if p.Request, err = x509.CreateCertificateRequest(rand.Reader, template, s); err != nil {
		return p, fmt.Errorf("enroll: certificate request: %w", err)
	}
	return p, nil
}

// vouch signs with the key that is enrolled.
func (d *Device) vouch(digest []byte) (*renewal, error) {
	s, err := d.signer(d.s.Keys[0])
	if err != nil {
		return nil, err
	}
	signature, err := s.Sign(nil, digest, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	return &renewal{Key: d.s.Keys[0].Public, Signature: signature}, nil
}

// accept checks what the authority gave, and makes it the identity in one write.
func (d *Device) accept(r result) error {
	keys := d.keys()
	if r.Name == "" || len(r.Certificates) > 0 && len(r.Certificates) != len(keys) {
		return fail(ErrMalformed, "%d certificates for %d keys", len(r.Certificates), len(keys))
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

func checkIssued(der, ca []byte, key blob) error {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return fail(ErrMalformed, "certificate: %w", err)
	}
	p, err := parsePublic(key.Public)
	if err != nil {
		return err
	}
	if !samePublic(c.PublicKey, p.key) {
		return fail(ErrMalformed, "the certificate is for another key")
	}
	issuer, err := x509.ParseCertificate(ca)
	if err != nil {
		return fail(ErrMalformed, "certificate of the authority: %w", err)
	}
	if err := c.CheckSignatureFrom(issuer); err != nil {
		return fail(ErrMalformed, "certificate: %w", err)
	}
	return nil
}
