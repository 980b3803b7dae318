package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/identity"
)

// A desk is an authority with the state of a server.
type desk struct {
	*authority
	t     *testing.T
	state *bolt.Server
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	dir := t.TempDir()
	state, err := bolt.OpenServer(filepath.Join(dir, "server.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { state.Close() })
	c := defaultConfig()
	c.Server.Enrollment.State = filepath.Join(dir, "enroll.db")
	a, err := c.openAuthority(state, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return &desk{a, t, state}
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
	key, certificate := d.state.Revoked(ctx, name, ""), d.state.Revoked(ctx, nameInCertificate(name), "")
	if errors.Is(key, msl.ErrMasterTokenIdentityRevoked) != errors.Is(certificate, msl.ErrMasterTokenIdentityRevoked) {
		d.t.Errorf("%s: %v by its key and %v by its certificate", name, key, certificate)
	}
	return key != nil
}

// TestRegister gives a name to one device after the other, and takes it away from
// those who have it no more.
func TestRegister(t *testing.T) {
	ctx := context.Background()
	d := newDesk(t)
	first, renewed, second := identityKey(t), identityKey(t), identityKey(t)
	device := func(name string, key enroll.IdentityKey, former ...enroll.IdentityKey) enroll.Identity {
		return enroll.Identity{Name: name, Keys: []enroll.IdentityKey{key}, Former: former}
	}
	register := func(what string, i enroll.Identity, ok bool) {
		t.Helper()
		if err := d.register(ctx, d.state, i); (err == nil) != ok {
			t.Errorf("%s: %v", what, err)
		}
		e, err := d.state.Entity(ctx, i.Name)
		if ok && (err != nil || e.Revoked || !sameKey(i.Keys[0].Public, e.PublicKey)) {
			t.Errorf("%s: %+v, %v", what, e, err)
		}
	}
	withdraw := func(what string, i enroll.Identity, revoked bool) {
		t.Helper()
		for range 2 { // it may come again
			if err := d.withdraw(ctx, d.state, i); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		if got := d.revoked(i.Name); got != revoked {
			t.Errorf("%s: revoked %v, want %v", what, got, revoked)
		}
	}
	register("a new one", device("box", first), true)
	register("again", device("box", first), true)
	register("another one", device("box", second), false)
	register("a new key", device("box", renewed, first), true)
	withdraw("another one", device("box", second), false)
	withdraw("a key of before", device("box", first), false)
	withdraw("the device", device("box", renewed, first), true)
	register("the other, which does not know of it", device("box", second), false)
	other := device("box", second)
	other.Withdrawn = true
	register("the other, which takes its place", other, true)
	if d.revoked("box") {
		t.Error("the name is revoked")
	}
	withdraw("the first one, once more", device("box", renewed, first), false)

	// What was registered or revoked by hand stays.
	if err := d.state.RevokeEntity("box"); err != nil {
		t.Fatal(err)
	}
	register("after a revocation by hand", device("box", second), false)
	if err := d.state.AddEntity(state.EntityRecord{Identity: "person", Scheme: "NONE"}); err != nil {
		t.Fatal(err)
	}
	register("a name that is somebody's", device("person", second), false)
	withdraw("a name that is somebody's", device("person", second), false)
	withdraw("a name that nobody has", device("nobody", second), true)
	if err := d.register(ctx, d.state, enroll.Identity{Name: "x"}); err == nil {
		t.Error("a device without keys is registered")
	}
}

// TestTokenJudge has tokens of before and after a name was given.
func TestTokenJudge(t *testing.T) {
	since := time.Unix(1_800_000_000, 700_000_000)
	token := func(issued time.Time, renewal, life time.Duration) *msl.MasterToken {
		return &msl.MasterToken{RenewalWindow: issued.Add(renewal).Truncate(time.Second), Expiration: issued.Add(life).Truncate(time.Second)}
	}
	a := &authority{since: map[string]time.Time{}}
	a.setSince("box", since)
	a.setSince("box", since.Add(-time.Hour)) // never back
	a.setSince(nameInCertificate("van"), since)
	judge := a.tokenJudge(&msl.Issuer{})
	short := a.tokenJudge(&msl.Issuer{RenewAfter: time.Minute, Lifetime: 12 * time.Hour})
	for what, c := range map[string]struct {
		judge    func(string, *msl.MasterToken) error
		identity string
		token    *msl.MasterToken
		want     error
	}{
		"after":                       {judge, "box", token(since.Add(time.Second), time.Hour, 24*time.Hour), nil},
		"at once":                     {judge, "box", token(since, time.Hour, 24*time.Hour), nil},
		"before":                      {judge, "box", token(since.Add(-time.Second), time.Hour, 24*time.Hour), msl.ErrMasterTokenIdentityRevoked},
		"before, by a certificate":    {judge, "CN=box", token(since.Add(-time.Second), time.Hour, 24*time.Hour), msl.ErrMasterTokenIdentityRevoked},
		"another name":                {judge, "van", token(since.Add(-time.Second), time.Hour, 24*time.Hour), nil},
		"a certificate":               {judge, "CN=van", token(since.Add(-time.Second), time.Hour, 24*time.Hour), msl.ErrMasterTokenIdentityRevoked},
		"lived longer in those days":  {short, "box", token(since.Add(-time.Second), time.Minute, 24*time.Hour), msl.ErrMasterTokenIdentityRevoked},
		"renewed later in those days": {short, "box", token(since.Add(-time.Second), time.Hour, 12*time.Hour), msl.ErrMasterTokenIdentityRevoked},
	} {
		if err := c.judge(c.identity, c.token); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestThrottled(t *testing.T) {
	h := throttled(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	codes := map[int]int{}
	for range 5 * newcomersPerSecond {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/enroll", nil))
		codes[w.Code]++
	}
	if codes[http.StatusOK] < 2*newcomersPerSecond || codes[http.StatusServiceUnavailable] < newcomersPerSecond {
		t.Errorf("%v", codes)
	}
}

func TestSettledTPM(t *testing.T) {
	for uri, want := range map[string]string{
		"tpm:?state=device.keys":            "tpm:?state=/a%20b%26/device.keys",
		"tpm:?device=/dev/tpm0&state=x/y":   "tpm:?device=/dev/tpm0&state=/a%20b%26/x/y",
		"tpm:?state=/var/device.keys&srk=1": "tpm:?state=/var/device.keys&srk=1",
		"tpm:?state=%2Fvar%2Fdevice.keys":   "tpm:?state=%2Fvar%2Fdevice.keys",
		"tpm:?unix=/run/tpm":                "tpm:?unix=/run/tpm",
		"tpm:?state=":                       "tpm:?state=",
		"tpm:":                              "tpm:",
		"tpm:object=state=x?state=y&srk=1":  "tpm:object=state=x?state=/a%20b%26/y&srk=1",
	} {
		if got := settledTPM("/a b&", uri); got != want {
			t.Errorf("%s: %s, want %s", uri, got, want)
		}
	}
}

// TestEnrollmentPath refuses what would be the path of everything, or none.
func TestEnrollmentPath(t *testing.T) {
	for path, ok := range map[string]bool{"/enroll": true, "/a/b": true, "": false, "/": false, "enroll": false, "/{x}": false, "/a b": false} {
		if err := (&enrollmentConfig{Path: path}).checkPath(); (err == nil) != ok {
			t.Errorf("%q: %v", path, err)
		}
	}
}

// TestEnrollmentPolicy reads the settings of an operator, and refuses what they
// cannot mean.
func TestEnrollmentPolicy(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	id := strings.Repeat("0a", 32)
	for what, c := range map[string]struct {
		e  enrollmentConfig
		ok bool
	}{
		"the default":      {enrollmentConfig{Unknown: "hold"}, true},
		"everything":       {enrollmentConfig{Unknown: "refuse", Allow: []string{id}, EKKinds: []string{"rsa2048", "p256", "p384"}, Hold: true}, true},
		"nothing":          {enrollmentConfig{}, false},
		"another word":     {enrollmentConfig{Unknown: "allow"}, false},
		"half an EK hash":  {enrollmentConfig{Unknown: "hold", Allow: []string{id[:32]}}, false},
		"an unknown EK":    {enrollmentConfig{Unknown: "hold", EKKinds: []string{"rsa1024"}}, false},
		"no file of roots": {enrollmentConfig{Unknown: "hold", EKRoots: filepath.Join(dir, "none.pem")}, false},
		"no root in it":    {enrollmentConfig{Unknown: "hold", EKRoots: empty}, false},
	} {
		p, err := c.e.policy()
		if (err == nil) != c.ok || err != nil && exitCode(err) != exitUsage {
			t.Errorf("%s: %v", what, err)
		}
		if err == nil && (len(p.Allowed) != len(c.e.Allow) || len(p.Kinds) != len(c.e.EKKinds) || p.RefuseUnknown != (c.e.Unknown == "refuse")) {
			t.Errorf("%s: %+v", what, p)
		}
	}
}

// TestEnrollExitCodes has what becomes of a device that wants to enroll.
func TestEnrollExitCodes(t *testing.T) {
	for err, want := range map[error]int{
		enroll.ErrPending: exitHeld, enroll.ErrRejected: exitRefused, enroll.ErrRevoked: exitRefused, enroll.ErrKeyRevoked: exitRefused,
		enroll.ErrPolicy: exitRefused, enroll.ErrEKCertificate: exitRefused, enroll.ErrRenewal: exitRefused,
		identity.ErrOtherTPM: exitKeystore, identity.ErrCleared: exitKeystore, identity.ErrNotInitialized: exitKeystore, identity.ErrNotEnrolled: exitKeystore,
		enroll.ErrBusy: exitFailure, enroll.ErrInternal: exitFailure, enroll.ErrDamaged: exitFailure, enroll.ErrState: exitFailure,
	} {
		if got := exitCode(fmt.Errorf("enroll: %w: more", err)); got != want {
			t.Errorf("%v: exit code %d, want %d", err, got, want)
		}
	}
}
