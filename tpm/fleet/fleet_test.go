package fleet

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/identity"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// TestFleet enrolls a device, which then talks by its key and by its certificate with
// session keys of its TPM, until it is revoked.
func TestFleet(t *testing.T) {
	for name, quirk := range map[string]tpmtest.Quirk{"AES": nil, "no AES": tpmtest.WithoutEncryptDecrypt} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			b := s.enrolled(quirk)
			if b.hasAES != (quirk == nil) {
				t.Fatalf("the TPM has AES: %v", b.hasAES)
			}
			key, certificate := s.client(b, b.byKey()), s.client(b, b.byCertificate())
			s.talks(key, nil)
			s.talks(certificate, nil)
			if err := s.RevokeDevice(t.Context(), s.id(b), ""); err != nil {
				t.Fatal(err)
			}
			for _, c := range []*msl.Client{key, certificate, s.client(b, b.byKey()), s.client(b, b.byCertificate())} {
				s.talks(c, msl.ErrEntityRevoked)
			}
		})
	}
}

func (s *site) id(b *box) enroll.ID {
	s.t.Helper()
	r, err := s.Named(s.t.Context(), b.name())
	if err != nil {
		s.t.Fatal(err)
	}
	return r.ID
}

// TestConflict has an operator give the name of a device to another entity: the device
// does not learn why, and the operator sees everything.
func TestConflict(t *testing.T) {
	s := newSite(t)
	b := s.box(nil)
	status, err := b.Identity.Status()
	if err != nil {
		t.Fatal(err)
	}
	id, err := enroll.ParseID(status.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Approve(t.Context(), id, "camera", ""); err != nil {
		t.Fatal(err)
	}
	if err := s.state.AddEntity(state.EntityRecord{Identity: "camera", Scheme: "NONE"}); err != nil {
		t.Fatal(err)
	}
	if err := b.Identity.Enroll(t.Context(), b.through, nil); !errors.Is(err, identity.ErrInternal) || strings.Contains(err.Error(), "registered") {
		t.Errorf("the device hears %v", err)
	}
	var conflict *ConflictError
	if len(s.refused) != 1 || !errors.As(s.refused[0], &conflict) || !errors.Is(conflict, ErrRegistered) || conflict.Identity != "camera" {
		t.Fatalf("the operator hears %v", s.refused)
	}
	if !strings.HasSuffix(s.refused[0].Error(), ": "+conflict.Error()) { // so that the next step can follow
		t.Errorf("the operator hears %v", s.refused)
	}
	if err := s.state.RemoveEntity("camera"); err != nil {
		t.Fatal(err)
	}
	if err := b.Identity.Enroll(t.Context(), b.through, nil); err != nil || b.name() != "camera" {
		t.Errorf("after it was removed: %v", err)
	}
}

// TestCertificateRevoked revokes a certificate: tokens that were obtained with it end
// at once, and for a server that starts again.
func TestCertificateRevoked(t *testing.T) {
	s := newSite(t)
	b := s.enrolled(nil)
	now := time.Now()
	token := &msl.MasterToken{RenewalWindow: now.Add(time.Hour), Expiration: now.Add(24 * time.Hour)}
	judge := func() error {
		return judged(s.Authority, &msl.Issuer{})(t.Context(), CertificateIdentity(b.name()), token)
	}
	if err := judge(); err != nil {
		t.Fatal(err)
	}
	if err := s.RevokeCertificate(t.Context(), b.credential().Certificate.SerialNumber.Text(16), ""); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := judge(); !errors.Is(err, msl.ErrMasterTokenIdentityRevoked) {
			t.Errorf("%v", err)
		}
		s.restart()
	}
}

// TestX509 has certificates of a device before and after it renewed its key, and when
// its key was revoked.
func TestX509(t *testing.T) {
	s := newSite(t)
	b := s.enrolled(nil)
	scheme := s.certificates()
	scheme.Directory = nil // which may refuse the name, whatever the key is
	open := func(own msl.LocalEntity) error {
		local, err := own.Credentials(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, release, err := scheme.Open(t.Context(), local.AuthData)
		if err == nil {
			release()
		}
		return err
	}
	first := b.byCertificate()
	if err := open(first); err != nil {
		t.Error(err)
	}
	if err := b.Identity.Renew(t.Context(), b.through, nil); err != nil {
		t.Fatal(err)
	}
	if err := open(first); !errors.Is(err, msl.ErrEntityRevoked) {
		t.Errorf("the key of before: %v", err)
	}
	if err := open(b.byCertificate()); err != nil {
		t.Errorf("the new key: %v", err)
	}
	r, err := s.Get(t.Context(), s.id(b))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range r.Keys {
		if err := s.RevokeKey(t.Context(), r.ID, k.Name, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := open(b.byCertificate()); !errors.Is(err, msl.ErrEntityRevoked) {
		t.Errorf("a revoked key: %v", err)
	}
}

// TestPSK gives a device pre-shared keys: those wrapped for it, and nothing else, come
// into its TPM, all or none.
func TestPSK(t *testing.T) {
	s := newSite(t)
	b, other := s.enrolled(nil), s.enrolled(nil)
	nonce := bytes.Repeat([]byte{7}, 16)
	proof, err := b.ProveStorageKey(nonce)
	if err != nil {
		t.Fatal(err)
	}
	if err := proof.Certified(b.name(), nonce).Check(t.Context(), s.Authority); err != nil {
		t.Error(err)
	}
	if err := proof.Certified(other.name(), nonce).Check(t.Context(), s.Authority); !errors.Is(err, enroll.ErrSignature) {
		t.Errorf("the proof of another device: %v", err)
	}
	if err := proof.Certified(b.name(), bytes.Repeat([]byte{8}, 16)).Check(t.Context(), s.Authority); err == nil {
		t.Error("the proof is for any nonce")
	}
	if err := proof.Certified("nobody", nonce).Check(t.Context(), s.Authority); !errors.Is(err, enroll.ErrUnknown) {
		t.Errorf("the proof of nobody: %v", err)
	}
	keys := PSK{Encryption: make([]byte, 16), MAC: make([]byte, 32), Wrapping: make([]byte, 16)}
	set, err := WrapPSK(PSKIdentity(b.name()), proof.Public, keys)
	if err != nil {
		t.Fatal(err)
	}
	var otherDevice *OtherDeviceError
	if _, err := other.ImportPSK(set); !errors.As(err, &otherDevice) || otherDevice.Device != other.name() || otherDevice.Identity != set.Identity {
		t.Errorf("keys of another device: %v", err)
	}
	damaged := *set
	damaged.Revealing.Seed = set.MAC.Seed
	if _, err := b.ImportPSK(&damaged); !errors.Is(err, keystore.ErrBadData) {
		t.Errorf("a damaged key: %v", err)
	}
	if left := b.imported(); len(left) != 0 {
		t.Errorf("half a set is left: %v", left)
	}
	done, err := b.ImportPSK(set)
	if err != nil || len(done) != 3 || done[2].Label != b.name()+"-psk-revealing" || done[2].Algorithm != keystore.AESReveal128 {
		t.Errorf("%v, %v", done, err)
	}
	if all := b.imported(); len(all) != 3 {
		t.Errorf("imported %v", all)
	}
}

// TestPSKIdentity has the identity that an enrolled device has by pre-shared keys: the
// attestation key of the device is its own, and it is revoked with the device.
func TestPSKIdentity(t *testing.T) {
	s := newSite(t)
	b := s.enrolled(nil)
	nonce := make([]byte, 32)
	proof, err := b.ProveStorageKey(nonce)
	if err != nil {
		t.Fatal(err)
	}
	certified := keyx.TPMCertified{Public: proof.Public, Attest: proof.Attest, Signature: proof.Signature}
	for identity, want := range map[string]error{
		b.name(): nil, CertificateIdentity(b.name()): nil, PSKIdentity(b.name()): nil,
		"nobody": enroll.ErrUnknown, PSKIdentity("nobody"): enroll.ErrUnknown,
	} {
		err := Verifier{s.Authority}.Certified(t.Context(), identity, keyx.TPMStorage, certified, provisioning(nonce))
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", identity, err, want)
		}
	}
	psk := PSKIdentity(b.name())
	keys := &msl.SealedPSK{Encryption: []byte("e"), MAC: []byte("m"), Wrapping: []byte("w")}
	if err := s.state.AddEntity(state.EntityRecord{Identity: psk, Scheme: "PSK", PSK: keys}); err != nil {
		t.Fatal(err)
	}
	if err := s.RevokeDevice(t.Context(), s.id(b), ""); err != nil {
		t.Fatal(err)
	}
	if e, err := s.state.Entity(t.Context(), psk); err != nil || !e.Revoked {
		t.Errorf("the device is revoked, and %s is %+v, %v", psk, e, err)
	}
}

// imported are the labels of the pre-shared keys in the TPM.
func (b *box) imported() (labels []string) {
	b.t.Helper()
	all, err := b.Store.List()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, k := range all {
		if strings.Contains(k.Label, pskSuffix) {
			labels = append(labels, k.Label)
		}
	}
	return labels
}

// TestVerifierFails has records that cannot be read: that is not a verdict on a device.
func TestVerifierFails(t *testing.T) {
	d := newDesk(t)
	if err := d.records.Close(); err != nil {
		t.Fatal(err)
	}
	err := Verifier{d.Authority}.Certified(t.Context(), "box", keyx.TPMStorage, keyx.TPMCertified{}, nil)
	if !errors.Is(err, msl.ErrInternalException) {
		t.Error(err)
	}
}
