package enroll

import (
	"context"
	"crypto/x509"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// onCRL reports which certificates of a record are revoked, by all ways to ask.
func onCRL(t *testing.T, o *office, r Record) (revoked []bool) {
	t.Helper()
	der, err := o.CRL(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := list.CheckSignatureFrom(o.c.Certificate); err != nil {
		t.Error(err)
	}
	for _, c := range r.Certificates {
		serial, _ := new(big.Int).SetString(c.Serial, 16)
		found := false
		for _, e := range list.RevokedCertificateEntries {
			found = found || e.SerialNumber.Cmp(serial) == 0
		}
		asked, err := o.Revoked(context.Background(), serial)
		if err != nil || asked != found {
			t.Errorf("Revoked(%s) = %v, %v; the list says %v", c.Serial, asked, err, found)
		}
		revoked = append(revoked, found)
	}
	return revoked
}

func checkRevoked(t *testing.T, o *office, id ID, want ...bool) {
	t.Helper()
	got := onCRL(t, o, o.record(id))
	if len(got) != len(want) {
		t.Fatalf("revoked %v, want %v", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("revoked %v, want %v", got, want)
		}
	}
}

func TestRevocation(t *testing.T) {
	ctx := context.Background()
	o, f := newOffice(t, accepting(), nil), newForger(t)
	if err := f.enroll(o); err != nil {
		t.Fatal(err)
	}
	checkRevoked(t, o, f.id(), false)
	r := o.record(f.id())

	// A certificate: the key gets another one.
	if err := o.RevokeCertificate(ctx, "0"+strings.ToUpper(r.Certificates[0].Serial), "lost"); err != nil {
		t.Fatal(err)
	}
	checkRevoked(t, o, f.id(), true)
	if err := f.enroll(o); err != nil {
		t.Fatal(err)
	}
	checkRevoked(t, o, f.id(), true, false)
	checkError(t, o.RevokeCertificate(ctx, "1234", ""), ErrUnknown)
	if _, err := o.Revoked(ctx, big.NewInt(1234)); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}

	// A key: the device needs another one.
	if err := o.RevokeKey(ctx, f.id(), r.Keys[0].Name, "leaked"); err != nil {
		t.Fatal(err)
	}
	checkError(t, o.RevokeKey(ctx, f.id(), HexBytes{1}, ""), ErrUnknown)
	checkRevoked(t, o, f.id(), true, true)
	if len(o.withdrawn) != 1 || len(o.withdrawn[0].Keys) != 1 {
		t.Errorf("withdrawn %+v", o.withdrawn)
	}
	checkError(t, f.enroll(o), ErrKeyRevoked)
	old := f.key
	f.newKey()
	b := f.begin()
	p := f.prove(b, f.ask(o, b))
	p.Renewal = f.renewal(&p, old)
	_, err := o.Handle(ctx, proof.Encode(p))
	checkError(t, err, ErrRenewal)
	if err := f.enroll(o); err != nil {
		t.Fatal(err)
	}
	checkRevoked(t, o, f.id(), true, true, false)

	// The EK: nothing helps.
	o.refuse = errors.New("directory is down")
	checkError(t, o.RevokeDevice(ctx, f.id(), "stolen"), o.refuse)
	checkRevoked(t, o, f.id(), true, true, true)
	o.refuse = nil
	if err := o.RevokeDevice(ctx, f.id(), "stolen"); err != nil || len(o.withdrawn) != 3 {
		t.Errorf("%v, %d withdrawn", err, len(o.withdrawn))
	}
	f.newKey()
	checkError(t, f.enroll(o), ErrRevoked)
	checkError(t, o.Approve(ctx, f.id(), "", ""), ErrState)
	o.restart()
	checkError(t, f.enroll(o), ErrRevoked)
	// Expired certificates leave the list.
	o.now = o.now.Add(2 * 365 * 24 * time.Hour)
	der, err := o.CRL(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := x509.ParseRevocationList(der); err != nil || len(list.RevokedCertificateEntries) > 0 {
		t.Errorf("%v, %v", list.RevokedCertificateEntries, err)
	}
}

// newKey gives the forger another LDevID.
func (f *forger) newKey() {
	f.key = p256(f.t)
	f.pubs.key = eccArea(f.t, f.key, false)
}

func TestMerge(t *testing.T) {
	ctx := context.Background()
	o, before, after := newOffice(t, Policy{}, nil), newForger(t), newForger(t)
	if err := o.Approve(ctx, before.id(), "box", ""); err != nil {
		t.Fatal(err)
	}
	if err := before.enroll(o); err != nil {
		t.Fatal(err)
	}
	checkError(t, o.Merge(ctx, before.id(), after.id(), ""), ErrUnknown)
	checkError(t, o.Merge(ctx, before.id(), before.id(), ""), ErrState)
	checkError(t, after.enroll(o), ErrPending)
	if err := o.Merge(ctx, before.id(), after.id(), "new board"); err != nil {
		t.Fatal(err)
	}
	if len(o.withdrawn) != 1 {
		t.Errorf("withdrawn %+v", o.withdrawn)
	}
	checkRevoked(t, o, before.id(), true)
	checkError(t, before.enroll(o), ErrRevoked)
	if err := after.enroll(o); err != nil {
		t.Fatal(err)
	}
	r := o.record(after.id())
	if r.Name != "box" || r.State != Enrolled || o.registered["box"].ID != after.id() {
		t.Errorf("%+v", r)
	}
	if old := o.record(before.id()); old.Replaced == nil || *old.Replaced != after.id() || old.Name != "" {
		t.Errorf("%+v", old)
	}
	checkError(t, o.Merge(ctx, before.id(), after.id(), ""), ErrState)
	checkError(t, o.Merge(ctx, after.id(), before.id(), ""), ErrState)
	o.verify(nil)
}

// TestMergeDefaultName transfers a default name. Ending the old record afterwards leaves
// the name with the new one.
func TestMergeDefaultName(t *testing.T) {
	ctx := context.Background()
	o, before, after := newOffice(t, accepting(), nil), newForger(t), newForger(t)
	for _, f := range []*forger{before, after} {
		if err := f.enroll(o); err != nil {
			t.Fatal(err)
		}
	}
	name := defaultName(before.id())
	if err := o.Merge(ctx, before.id(), after.id(), ""); err != nil {
		t.Fatal(err)
	}
	if err := after.enroll(o); err != nil {
		t.Fatal(err)
	}
	if id := o.registered[name]; id.ID != after.id() || !id.Withdrawn || id.Since.IsZero() {
		t.Errorf("%+v", id)
	}
	for what, do := range map[string]func() error{
		"revoke": func() error { return o.RevokeDevice(ctx, before.id(), "") },
		"reject": func() error { return o.Reject(ctx, before.id(), "") },
	} {
		o.withdrawn = nil
		if err := do(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		for _, w := range o.withdrawn { // of the old keys only
			if len(w.Keys) != 1 || !keystore.SamePublic(w.Keys[0].Public, before.key.Public()) {
				t.Errorf("%s withdraws %+v", what, w)
			}
		}
	}
	if err := o.Reinstate(ctx, before.id(), ""); err != nil {
		t.Fatal(err)
	}
	if err := before.enroll(o); err != nil {
		t.Fatal(err)
	}
	if r := o.record(before.id()); r.Name == name || r.State != Enrolled {
		t.Errorf("%+v", r)
	}
	if r := o.record(after.id()); r.Name != name || r.State != Enrolled {
		t.Errorf("%+v", r)
	}
	o.verify(nil)
}

// TestRegisterCutOff revokes a device whose keys were registered when the
// authority was stopped before it could write that down.
func TestRegisterCutOff(t *testing.T) {
	ctx := context.Background()
	o, f := newOffice(t, accepting(), nil), newForger(t)
	if err := f.enroll(o); err != nil {
		t.Fatal(err)
	}
	f.newKey()
	o.refuse = errors.New("stopped")
	checkError(t, f.enroll(o), o.refuse)
	o.refuse = nil
	o.restart()
	if err := o.RevokeDevice(ctx, f.id(), "stolen"); err != nil {
		t.Fatal(err)
	}
	if len(o.withdrawn) != 1 || len(o.withdrawn[0].Former) != 1 || !keystore.SamePublic(o.withdrawn[0].Former[0].Public, f.key.Public()) {
		t.Errorf("withdrawn %+v", o.withdrawn)
	}
}

// TestSince checks since when a device has its state: a renewal, or another certificate for
// the same key, does not change that.
func TestSince(t *testing.T) {
	ctx := context.Background()
	o, f := newOffice(t, accepting(), nil), newForger(t)
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	began := o.now
	since := func(when string, want time.Time) {
		t.Helper()
		o.now = o.now.Add(time.Minute)
		if r := o.record(f.id()); !r.Since.Equal(want) || !o.registered[r.Name].Since.Equal(want) {
			t.Errorf("%s: since %v and %v, want %v", when, r.Since, o.registered[r.Name].Since, want)
		}
	}
	do(f.enroll(o))
	since("enrolled", began)
	do(f.enroll(o))
	since("again", began)
	do(o.RevokeCertificate(ctx, o.record(f.id()).Certificates[0].Serial, ""))
	do(f.enroll(o))
	since("another certificate", began)
	old := f.key
	f.newKey()
	do(f.renew(o, old))
	since("renewed", began)
	f.newKey()
	now := o.now
	do(f.enroll(o))
	since("a key for which nobody vouched", now)
	now = o.now
	do(o.Approve(ctx, f.id(), "box", ""))
	do(f.enroll(o))
	since("another name", now)
	do(o.RevokeDevice(ctx, f.id(), ""))
	do(o.Reinstate(ctx, f.id(), ""))
	now = o.now
	do(f.enroll(o))
	since("reinstated", now)
}
