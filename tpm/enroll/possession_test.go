package enroll

import (
	"bytes"
	"context"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// storageArea is a storage key that only a forger has.
func storageArea(t testing.TB) tpm2.TPMTPublic {
	t.Helper()
	area := tpm2.ECCSRKTemplate
	area.Unique = eccArea(t, p256(t), false).Unique
	return area
}

// certified is the certification of a key by the forger's AK.
func (f *forger) certified(area tpm2.TPMTPublic, qualifying []byte, change func(*tpm2.TPMSAttest)) proof.KeyProof {
	f.t.Helper()
	a := tpm2.TPMSAttest{
		Magic: tpm2.TPMGeneratedValue, Type: tpm2.TPMSTAttestCertify, ExtraData: tpm2.TPM2BData{Buffer: qualifying},
		Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestCertify, &tpm2.TPMSCertifyInfo{Name: tpm2.TPM2BName{Buffer: nameOf(area)}}),
	}
	if change != nil {
		change(&a)
	}
	return f.sign(tpm2.Marshal(a))
}

// TestPossessionForged lets the AK sign what a TPM would never certify.
func TestPossessionForged(t *testing.T) {
	o, f := newOffice(t, accepting(), nil), newForger(t)
	if err := f.enroll(o); err != nil {
		t.Fatal(err)
	}
	good, nonce := storageArea(t), bytes.Repeat([]byte{7}, 32)
	check := func(what string, area tpm2.TPMTPublic, p proof.KeyProof, want error) {
		t.Helper()
		t.Run(what, func(t *testing.T) {
			err := o.Certified(context.Background(), defaultName(f.id()), Storage, tpm2.Marshal(area), p.Attest, p.Signature, nonce)
			checkError(t, err, want)
		})
	}
	check("as it should be", good, f.certified(good, nonce, nil), nil)
	for what, change := range map[string]func(*tpm2.TPMAObject){
		"not fixed to its TPM":    func(a *tpm2.TPMAObject) { a.FixedTPM = false },
		"not fixed to its parent": func(a *tpm2.TPMAObject) { a.FixedParent = false },
		"not made in the TPM":     func(a *tpm2.TPMAObject) { a.SensitiveDataOrigin = false },
		"unrestricted":            func(a *tpm2.TPMAObject) { a.Restricted = false },
		"without decryption":      func(a *tpm2.TPMAObject) { a.Decrypt = false },
		"signs as well":           func(a *tpm2.TPMAObject) { a.SignEncrypt = true },
	} {
		area := good
		change(&area.ObjectAttributes)
		check(what, area, f.certified(area, nonce, nil), ErrKey)
	}
	for what, c := range map[string]struct {
		change func(*tpm2.TPMSAttest)
		want   error
	}{
		"not of a TPM":  {func(a *tpm2.TPMSAttest) { a.Magic++ }, ErrAttestation},
		"another nonce": {func(a *tpm2.TPMSAttest) { a.ExtraData.Buffer = nonce[1:] }, ErrNonce},
		"another key": {func(a *tpm2.TPMSAttest) {
			a.Attested = tpm2.NewTPMUAttest(tpm2.TPMSTAttestCertify, &tpm2.TPMSCertifyInfo{Name: tpm2.TPM2BName{Buffer: nameOf(storageArea(t))}})
		}, ErrAttestation},
		"no key": {func(a *tpm2.TPMSAttest) {
			a.Attested = tpm2.NewTPMUAttest(tpm2.TPMSTAttestCertify, &tpm2.TPMSCertifyInfo{})
		}, ErrAttestation},
	} {
		check(what, good, f.certified(good, nonce, c.change), c.want)
	}
	q := f.quote(nonce)
	check("a quote", good, proof.KeyProof{Attest: q.Attest, Signature: q.Signature}, ErrAttestation)
	own := f.ak
	f.ak = p256(t)
	check("signed by another key", good, f.certified(good, nonce, nil), ErrSignature)
	f.ak = own
}

// TestPossessionStates checks that the certification by an AK counts only while its device
// is enrolled.
func TestPossessionStates(t *testing.T) {
	ctx := context.Background()
	o, f := newOffice(t, Policy{}, nil), newForger(t)
	area, nonce := storageArea(t), make([]byte, 32)
	name := "box"
	check := func(when string, want error) {
		t.Helper()
		t.Run(when, func(t *testing.T) {
			p := f.certified(area, nonce, nil)
			checkError(t, o.Certified(ctx, name, Storage, tpm2.Marshal(area), p.Attest, p.Signature, nonce), want)
		})
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	checkError(t, f.enroll(o), ErrPending)
	check("under a name to come", ErrUnknown)
	name = defaultName(f.id())
	check("pending", ErrState)
	do(o.Approve(ctx, f.id(), "box", ""))
	name = "box"
	check("approved", ErrState)
	do(f.enroll(o))
	check("enrolled", nil)
	do(o.RevokeDevice(ctx, f.id(), "stolen"))
	check("revoked", ErrState)
	do(o.Reinstate(ctx, f.id(), "found"))
	check("reinstated", ErrState)
	do(o.Reject(ctx, f.id(), "no"))
	check("rejected", ErrState)
	do(o.Approve(ctx, f.id(), "", ""))
	f.newKey()
	do(f.enroll(o))
	check("enrolled again", nil)

	// Another TPM replaced it: the name no longer belongs to this one.
	after := newForger(t)
	checkError(t, after.enroll(o), ErrPending)
	do(o.Merge(ctx, f.id(), after.id(), "new board"))
	check("merged", ErrState)
	do(after.enroll(o))
	check("after the merge", ErrSignature)
	f = after
	check("the other", nil)
}

// FuzzCertified presents anything to an authority as certified. What it accepts must
// contain the Name, and be signed.
func FuzzCertified(f *testing.F) {
	o, g := newOffice(f, accepting(), nil), newForger(f)
	if err := g.enroll(o); err != nil {
		f.Fatal(err)
	}
	area, nonce := storageArea(f), make([]byte, 32)
	p := g.certified(area, nonce, nil)
	f.Add(1, tpm2.Marshal(area), p.Attest, p.Signature, false)
	q := g.quote(nonce)
	f.Add(2, tpm2.Marshal(g.pubs.ek), q.Attest, q.Signature, true)
	f.Fuzz(func(t *testing.T, use int, public, attest, signature []byte, resign bool) {
		g := *g
		g.t = t
		if resign { // the most that an attacker with the AK can do
			signature = g.sign(attest).Signature
		}
		if o.Certified(context.Background(), defaultName(g.id()), Use(use), public, attest, signature, nonce) != nil {
			return
		}
		k, err := proof.ParsePublic(public)
		if err != nil || !k.Area.ObjectAttributes.FixedTPM || !bytes.Contains(attest, k.Name) || !bytes.Contains(attest, nonce) {
			t.Fatalf("certified %x with %x", public, attest)
		}
	})
}
