package enroll

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

// FuzzHandle sends anything to an authority. What it enrols must have evidence
// that holds.
func FuzzHandle(f *testing.F) {
	o, g := newOffice(f, accepting(), nil), newForger(f)
	b := g.begin()
	c := g.ask(o, b)
	f.Add(encode(b))
	f.Add(encode(c))
	f.Add(encode(g.prove(b, c)))
	f.Add(errorResult("", ErrPending))
	f.Fuzz(func(t *testing.T, message []byte) {
		response, err := o.Handle(context.Background(), message)
		if len(response) == 0 || len(response) > MaxMessage {
			t.Fatalf("an answer of %d bytes", len(response))
		}
		if kind, err := messageType(response); err != nil || kind != typeChallenge && kind != typeResult {
			t.Fatalf("%s, %v", kind, err)
		}
		if _, word := parseResult(response); err != nil && word == nil {
			t.Fatalf("the authority says %v, and the device hears nothing", err)
		}
	})
}

// FuzzParts puts anything into the parts of a proof, past the checks of the
// challenge.
func FuzzParts(f *testing.F) {
	o, g := newOffice(f, accepting(), nil), newForger(f)
	b := g.begin()
	p := g.prove(b, g.ask(o, b))
	q := g.quote(p.digest(useQuote))
	r := g.renewal(&p, g.key)
	f.Add(b.EK, b.AK, b.Keys[0], p.Keys[0].Attest, p.Keys[0].Signature, p.Keys[0].Request, q.Attest, r.Key, r.Signature)
	p384 := p384Template()
	p384.Unique = g.pubs.key.Unique
	f.Add(tpm2.Marshal(p384), b.AK, b.Keys[0], p.Keys[0].Attest, p.Keys[0].Signature, p.Keys[0].Request, q.Attest, r.Key, r.Signature)
	f.Fuzz(func(t *testing.T, ek, ak, key, attest, signature, request, quoted, old, vouched []byte) {
		p, g := p, *g
		g.t = t
		p.Begin.EK, p.Begin.AK, p.Begin.Keys = ek, ak, [][]byte{key}
		p.Keys = []keyProof{{Attest: attest, Signature: signature, Request: request}}
		n, err := p.Begin.open()
		if err == nil { // as far as an authority that gets it first
			if _, err := o.challenge(&p.Begin, &n, 1); err != nil && !errors.Is(err, ErrKey) {
				t.Fatal(err)
			}
		}
		for _, raw := range [][]byte{ek, ak, key, old} {
			if k, err := parsePublic(raw); err == nil && !bytes.Equal(tpm2.Marshal(*k.area), raw) {
				t.Fatal("a public area of two forms")
			}
		}
		mine, err := parsePublic(b.AK)
		if err != nil {
			t.Fatal(err)
		}
		attested(mine, quoted, g.sign(quoted).Signature, tpm2.TPMSTAttestQuote, nil)
		checkQuote(mine, quote{Attest: quoted, Signature: g.sign(quoted).Signature, PCRs: q.PCRs}, p.digest(useQuote))
		checkCertify(mine, mine, keyProof{Attest: attest, Signature: g.sign(attest).Signature}, nil)
		checkTPMSignature(mine.key, make([]byte, 32), signature)
		p.Renewal = &renewal{Key: old, Signature: vouched}
		p.checkRenewal()
		checkRequest(mine, request)
		if _, err := p.open(); err == nil && !(bytes.Equal(ek, b.EK) && bytes.Equal(ak, b.AK) && bytes.Equal(key, b.Keys[0])) {
			t.Fatal("a proof of other keys")
		}
	})
}

// FuzzEvidence changes evidence: it holds as it is, or not at all.
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

// FuzzAnswers sends anything to a device.
func FuzzAnswers(f *testing.F) {
	o, g := newOffice(f, accepting(), nil), newForger(f)
	f.Add(encode(g.ask(o, g.begin())))
	f.Add(errorResult("12", ErrRejected))
	f.Add(encode(result{Type: typeResult, Version: 1, State: stateEnrolled, Name: "box"}))
	f.Fuzz(func(t *testing.T, answer []byte) {
		if c, err := readChallenge(answer); err == nil && !bytes.Equal(encode(c), answer) {
			t.Fatal("a challenge of two forms")
		}
		if r, err := parseResult(answer); err == nil && (r.State != stateEnrolled || !bytes.Equal(encode(r), answer)) {
			t.Fatal("a result of two forms")
		}
	})
}

// FuzzState reads anything as a state file, with a checksum that fits.
func FuzzState(f *testing.F) {
	g := newForger(f)
	s := state{Version: 1, EK: &ekState{EKRSA2048, tpm2.Marshal(g.pubs.ek)}, Keys: []blob{{Public: tpm2.Marshal(g.pubs.key)}}}
	good, err := json.Marshal(s)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, payload []byte) {
		s, err := parseState([]byte(stateHead(payload) + "\n" + string(payload)))
		if err != nil {
			return
		}
		d := &Device{s: s}
		d.status()
		d.credentials()
	})
}

// FuzzEKCertificate reads anything as an EK certificate, and as a bundle.
func FuzzEKCertificate(f *testing.F) {
	m, g := newMaker(f, "Maker"), newForger(f)
	der := m.certify(g.ek.Public(), nil)
	f.Add(der, tpmName(f))
	f.Fuzz(func(t *testing.T, der, name []byte) {
		splitCertificates(der, 3)
		ParseEKCertificate(der)
		ParseBundle(der)
		ParseBundle(PEM("CERTIFICATE", der))
		(&EKCertificate{}).readName(name)
	})
}
