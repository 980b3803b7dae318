package enroll

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// FuzzHandle sends anything to an authority. Whatever it enrolls must have valid evidence.
func FuzzHandle(f *testing.F) {
	o, g := newOffice(f, accepting(), nil), newForger(f)
	b := g.begin()
	c := g.ask(o, b)
	f.Add(proof.Encode(b))
	f.Add(proof.Encode(c))
	f.Add(proof.Encode(g.prove(b, c)))
	f.Add(proof.ErrorResult("", ErrPending))
	f.Add(proof.Encode(proof.AttestBegin{Type: proof.TypeAttestBegin, Version: proof.Version, ID: make([]byte, 32)}))
	f.Add(proof.Encode(g.attestation(o, map[uint]byte{0: 1})))
	f.Fuzz(func(t *testing.T, message []byte) {
		response, err := o.Handle(context.Background(), message)
		if len(response) == 0 || len(response) > MaxMessage {
			t.Fatalf("an answer of %d bytes", len(response))
		}
		if kind, err := proof.MessageType(response); err != nil || kind != proof.TypeChallenge && kind != proof.TypeAttestChallenge && kind != proof.TypeResult {
			t.Fatalf("%s, %v", kind, err)
		}
		if _, word := proof.ParseResult(response); err != nil && word == nil {
			t.Fatalf("the authority says %v, and the device hears nothing", err)
		}
	})
}

// FuzzEvidence changes evidence: it is valid only unchanged.
func FuzzEvidence(f *testing.F) {
	m, g := newMaker(f, "Maker"), newForger(f)
	g.certificates = [][]byte{m.certify(g.ek.Public(), nil)}
	o := newOffice(f, Policy{Bundle: bundleOf(f, []*x509.Certificate{m.cert})}, nil)
	if err := g.enroll(o); err != nil {
		f.Fatal(err)
	}
	r := o.record(g.id())
	v := Verifier{Roots: pool(m.cert), CA: o.c.Certificate}
	good, chain := r.Evidence.Proof, r.Evidence.Chain
	f.Add(good, chain[0], chain[1])
	f.Fuzz(func(t *testing.T, proof, certificate, root []byte) {
		r.Evidence = &Evidence{Proof: proof, Chain: [][]byte{certificate, root}, Checked: r.Evidence.Checked}
		same := bytes.Equal(proof, good) && bytes.Equal(certificate, chain[0]) && bytes.Equal(root, chain[1])
		if err := v.Verify(&r); (err == nil) != same {
			t.Fatalf("the same: %v; %v", same, err)
		}
	})
}

// FuzzEKCertificate reads anything as an EK certificate, and as a bundle.
func FuzzEKCertificate(f *testing.F) {
	m, g := newMaker(f, "Maker"), newForger(f)
	der := m.certify(g.ek.Public(), nil)
	f.Add(der, tpmName(f))
	for _, name := range []string{"nuvoton-oaep.der", "st-header.der", "st-oaep.pem", "st-padded.der"} {
		f.Add(readCase(f, name), tpmName(f))
	}
	f.Add(m.issueOdd(g.ek.Public(), func(p *parts) { p.serial = []byte{2, 2, 0x80, 1} }), tpmName(f))
	for _, spell := range []spelling{long, open, inParts} {
		f.Add(m.issueOdd(g.ek.Public(), func(p *parts) { p.version, p.spell = nil, spell }), attributes("id:54534554", 28, true))
	}
	f.Fuzz(func(t *testing.T, der, name []byte) {
		if e, err := ParseEKCertificate(der); err == nil && e.PublicKey == nil {
			t.Error("a certificate without a key")
		}
		ParseBundle(der)
		ParseBundle(PEM("CERTIFICATE", der))
		(&EKCertificate{}).readName(name)
		if text := writtenName(name); text == "" && plainName(name) != "" {
			t.Error("a name that is not written")
		}
	})
}

// FuzzEK makes a challenge for anything that passes for an EK.
func FuzzEK(f *testing.F) {
	o, g := newOffice(f, accepting(), nil), newForger(f)
	b := g.begin()
	ecc := tpm2.ECCEKTemplate
	ecc.Unique = g.pubs.key.Unique
	f.Add(b.EK)
	f.Add(tpm2.Marshal(ecc))
	f.Fuzz(func(t *testing.T, ek []byte) {
		b := b
		b.EK = ek
		n, err := b.Open()
		if err != nil {
			return
		}
		if err := o.challenges.fill(&proof.Challenge{}, &b, &n, time.Unix(0, 1), 0); err != nil && !errors.Is(err, ErrKey) {
			t.Fatal(err)
		}
	})
}
