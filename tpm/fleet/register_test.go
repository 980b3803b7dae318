package fleet

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// A desk is an authority with the state of a server and a CA.
type desk struct {
	*Authority
	t        testing.TB
	state    *bolt.Server
	records  *enroll.File
	settings enroll.Config
}

func newDesk(t testing.TB) *desk {
	t.Helper()
	dir := t.TempDir()
	state, err := bolt.OpenServer(filepath.Join(dir, "server.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { state.Close() })
	records, err := enroll.OpenFile(filepath.Join(dir, "enroll.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { records.Close() })
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := enroll.NewCA(key, "Fleet CA", time.Now(), 10*365*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{t: t, state: state, records: records}
	d.settings = enroll.Config{Records: records, Policy: enroll.Policy{Monitor: true}, Certificate: ca, Key: key}
	d.restart()
	return d
}

// restart makes a new authority, with only the files.
func (d *desk) restart() {
	d.t.Helper()
	var err error
	if d.Authority, err = NewAuthority(d.state, d.settings); err != nil {
		d.t.Fatal(err)
	}
}

func identityKey(t *testing.T) enroll.IdentityKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return enroll.IdentityKey{Public: k.Public()}
}

// revoked asks for both identities of a name.
func (d *desk) revoked(name string) bool {
	d.t.Helper()
	ctx := context.Background()
	key, certificate := d.state.Revoked(ctx, name, ""), d.state.Revoked(ctx, CertificateIdentity(name), "")
	if errors.Is(key, msl.ErrMasterTokenIdentityRevoked) != errors.Is(certificate, msl.ErrMasterTokenIdentityRevoked) {
		d.t.Errorf("%s: %v by its key and %v by its certificate", name, key, certificate)
	}
	return key != nil
}

// TestRegister gives a name to one device after the other, and removes it from the earlier
// ones.
func TestRegister(t *testing.T) {
	ctx := context.Background()
	d := newDesk(t)
	first, renewed, second := identityKey(t), identityKey(t), identityKey(t)
	device := func(name string, key enroll.IdentityKey, former ...enroll.IdentityKey) enroll.Identity {
		return enroll.Identity{Name: name, Keys: []enroll.IdentityKey{key}, Former: former}
	}
	register := func(what string, i enroll.Identity, want error) {
		t.Helper()
		err := d.register(ctx, i)
		var conflict *ConflictError
		if !errors.Is(err, want) || errors.As(err, &conflict) != (want != nil) || want != nil && conflict.Identity != i.Name {
			t.Errorf("%s: %v", what, err)
		}
		e, err := d.state.Entity(ctx, i.Name)
		if want == nil && (err != nil || e.Revoked || !keystore.SamePublic(i.Keys[0].Public, e.PublicKey)) {
			t.Errorf("%s: %+v, %v", what, e, err)
		}
	}
	withdraw := func(what string, i enroll.Identity, revoked bool) {
		t.Helper()
		for range 2 { // it may come again
			if err := d.withdraw(ctx, i); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		if got := d.revoked(i.Name); got != revoked {
			t.Errorf("%s: revoked %v, want %v", what, got, revoked)
		}
	}
	register("a new one", device("box", first), nil)
	register("again", device("box", first), nil)
	register("another one", device("box", second), ErrRegistered)
	register("a new key", device("box", renewed, first), nil)
	withdraw("another one", device("box", second), false)
	withdraw("a key of before", device("box", first), false)
	withdraw("the device", device("box", renewed, first), true)
	register("the other, which does not know of it", device("box", second), ErrRevoked)
	other := device("box", second)
	other.Withdrawn = true
	register("the other, which takes its place", other, nil)
	if d.revoked("box") {
		t.Error("the name is revoked")
	}
	withdraw("the first one, once more", device("box", renewed, first), false)

	// Registrations and revocations by an operator stay.
	if err := d.state.RevokeEntity("box"); err != nil {
		t.Fatal(err)
	}
	register("after a revocation by hand", device("box", second), ErrRevoked)
	if err := d.state.AddEntity(state.EntityRecord{Identity: "person", Scheme: "NONE"}); err != nil {
		t.Fatal(err)
	}
	register("a name that is somebody's", device("person", second), ErrRegistered)
	withdraw("a name that is somebody's", device("person", second), false)
	withdraw("a name that nobody has", device("nobody", second), true)
	if err := d.register(ctx, enroll.Identity{Name: "x"}); err == nil {
		t.Error("a device without keys is registered")
	}
}

// TestDropPSK gives a name to another TPM: the pre-shared keys that went into
// the one before are gone, and those of a device that only renewed its key stay.
func TestDropPSK(t *testing.T) {
	d := newDesk(t)
	given := time.Now().Add(-time.Hour)
	keys := &msl.SealedPSK{Encryption: []byte("e"), MAC: []byte("m"), Wrapping: []byte("w")}
	if err := d.state.AddEntity(state.EntityRecord{Identity: "cam-psk", Scheme: "PSK", PSK: keys, Created: given}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		since time.Time
		stays bool
	}{
		{given.Add(-time.Hour), true},
		{given.Add(time.Minute), false},
		{given.Add(2 * time.Minute), false}, // it is gone already
	} {
		if err := d.dropPSK(t.Context(), enroll.Identity{Name: "cam", Since: step.since}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.state.Entity(t.Context(), "cam-psk"); (err == nil) != step.stays {
			t.Errorf("since %v: %v", step.since, err)
		}
	}
}
