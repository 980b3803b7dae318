package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// begin makes the first message, which names the keys.
func (a *application) begin() (proof.Begin, error) {
	b := proof.Begin{Type: proof.TypeBegin, Version: proof.Version, EK: a.file.state.EK.Public, AK: a.file.state.AK.Public, EventLog: a.log != nil}
	for _, k := range a.keys() {
		b.Keys = append(b.Keys, k.Public)
	}
	err := a.do(func(t transport.TPM) (err error) {
		b.EKCertificates, err = readCertificates(t, a.file.state.EK.Kind, a.file.state.EK.Certificates, a.progress)
		return err
	})
	return b, err
}

// prove makes the second message: it opens the challenge and lets the keys sign.
func (a *application) prove(b proof.Begin, c proof.Challenge) (proof.Proof, error) {
	p := proof.Proof{Type: proof.TypeProof, Version: proof.Version, Begin: b, Challenge: c}
	err := a.do(func(t transport.TPM) (err error) {
		p.Secret, err = a.activate(t, c)
		return err
	})
	if err != nil {
		return p, err
	}
	for _, k := range a.keys() {
		kp, err := a.proveKey(k, p.Digest(proof.UseCertify))
		if err != nil {
			return p, err
		}
		p.Keys = append(p.Keys, kp)
	}
	if len(a.pcrs) > 0 {
		q, err := a.quote(p.Digest(proof.UseQuote), a.pcrs)
		if err != nil {
			return p, err
		}
		p.Quote = &q
	}
	if c.EventLog {
		p.EventLog = a.log
	}
	if a.maker != nil {
		if err := a.proveDevice(&p); err != nil {
			return p, err
		}
	}
	if len(a.file.state.Next) == 0 {
		return p, nil
	}
	p.Renewal, err = a.vouch(p.Digest(proof.UseRenewal))
	return p, err
}

// signatureAlgorithm returns the algorithm with which an LDevID signs requests.
func signatureAlgorithm(key crypto.PublicKey) x509.SignatureAlgorithm {
	if _, ok := key.(*ecdsa.PublicKey); ok {
		return x509.ECDSAWithSHA256
	}
	return x509.SHA256WithRSA
}

// proveKey makes the AK certify a key, and the key sign a request.
func (a *application) proveKey(k tpm.Blob, qualifying []byte) (p proof.KeyProof, err error) {
	err = a.do(func(t transport.TPM) error {
		return a.use(t, k, func(key tpm2.NamedHandle) (err error) {
			p.Attest, p.Signature, err = a.certify(t, key, qualifying)
			return err
		})
	})
	if err != nil {
		return p, err
	}
	s, err := a.signer(k)
	if err != nil {
		return p, err
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "LDevID"}, SignatureAlgorithm: signatureAlgorithm(s.Public())}
	if p.Request, err = x509.CreateCertificateRequest(rand.Reader, template, s); err != nil {
		return p, fmt.Errorf("enroll: certificate request: %w", err)
	}
	return p, nil
}

// vouch signs with the enrolled key.
func (a *application) vouch(digest []byte) (*proof.Renewal, error) {
	s, err := a.signer(a.file.state.Keys[0])
	if err != nil {
		return nil, err
	}
	signature, err := s.Sign(nil, digest, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	return &proof.Renewal{Key: a.file.state.Keys[0].Public, Signature: signature}, nil
}
