package enroll

import (
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// TestPolicy is the order in which a policy decides.
func TestPolicy(t *testing.T) {
	m := newMaker(t, "Maker")
	bundle := bundleOf(t, []*x509.Certificate{m.cert})
	f := newForger(t)
	good, bad := m.certify(f.ek.Public(), nil), newMaker(t, "Stranger").certify(f.ek.Public(), nil)
	foreign := m.certify(newForger(t).ek.Public(), nil)
	listed := map[ID]bool{f.id(): true}
	approve := func(o *office) error { return o.Approve(context.Background(), f.id(), "box-1", "by phone") }
	reject := func(o *office) error { return o.Reject(context.Background(), f.id(), "unknown") }
	revoke := func(o *office) error { return o.RevokeDevice(context.Background(), f.id(), "stolen") }
	tests := []struct {
		name        string
		policy      Policy
		certificate []byte
		before      func(*office) error
		want        error
		accepted    string
	}{
		{name: "nothing", want: ErrPending},
		{name: "nothing, and none unknown", policy: Policy{RefuseUnknown: true}, want: ErrPolicy},
		{name: "nothing, monitored", policy: Policy{RefuseUnknown: true, Monitor: true}, accepted: "monitoring only: enroll: device is not allowed"},
		{name: "waits, monitored", policy: Policy{Monitor: true}, accepted: "monitoring only: its EK is unknown"},
		{name: "certificate", policy: Policy{Bundle: bundle}, certificate: good, accepted: "EK certificate"},
		{name: "certificate that nobody asked for", certificate: good, want: ErrPending},
		{name: "bad certificate", policy: Policy{Bundle: bundle}, certificate: bad, want: ErrPending},
		{name: "bad certificate, and none unknown", policy: Policy{Bundle: bundle, RefuseUnknown: true}, certificate: bad, want: ErrEKCertificate},
		{name: "bad certificate, monitored", policy: Policy{Bundle: bundle, Monitor: true}, certificate: bad, accepted: "monitoring only: its EK certificate is not accepted: x509"},
		{name: "no certificate", policy: Policy{Bundle: bundle}, want: ErrPending},
		{name: "list", policy: Policy{Allowed: listed, RefuseUnknown: true}, accepted: "EK is on the list"},
		{name: "list, in spite of a bad certificate", policy: Policy{Bundle: bundle, Allowed: listed}, certificate: bad, accepted: "EK is on the list"},
		{name: "list, in spite of a certificate of another EK", policy: Policy{Allowed: listed}, certificate: foreign, accepted: "EK is on the list"},
		{name: "certificate of another EK", policy: Policy{Bundle: bundle}, certificate: foreign, want: ErrPending},
		{name: "list, in spite of garbage", policy: Policy{Bundle: bundle, Allowed: listed}, certificate: []byte("garbage"), accepted: "EK is on the list"},
		{name: "person, in spite of garbage", policy: Policy{Bundle: bundle}, certificate: []byte("garbage"), before: approve, accepted: "approved by a person"},
		{name: "another kind of EK", policy: Policy{Kinds: []EKKind{EKP256}, Monitor: true}, want: ErrPolicy},
		{name: "the kind of EK", policy: Policy{Kinds: []EKKind{EKP256, EKRSA2048}}, want: ErrPending},
		{name: "person", policy: Policy{RefuseUnknown: true}, before: approve, accepted: "approved by a person"},
		{name: "person, in spite of a bad certificate", policy: Policy{Bundle: bundle}, certificate: bad, before: approve, accepted: "approved by a person"},
		{name: "rejected, in spite of all", policy: Policy{Bundle: bundle, Allowed: listed, Monitor: true}, certificate: good, before: reject, want: ErrRejected},
		{name: "revoked, in spite of all", policy: Policy{Bundle: bundle, Allowed: listed, Monitor: true}, certificate: good, before: revoke, want: ErrRevoked},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := newOffice(t, tt.policy, nil)
			if tt.before != nil {
				if err := tt.before(o); err != nil {
					t.Fatal(err)
				}
			}
			f.certificates = nil
			if tt.certificate != nil {
				f.certificates = [][]byte{tt.certificate}
			}
			b := f.begin()
			response, err := o.Handle(context.Background(), proof.Encode(b))
			if err == nil {
				c, perr := proof.Parse[proof.Challenge](response, proof.TypeChallenge)
				if perr != nil {
					t.Fatal(perr)
				}
				_, err = o.Handle(context.Background(), proof.Encode(f.prove(b, c)))
			}
			checkError(t, err, tt.want)
			if tt.want == nil {
				if r := o.record(f.id()); r.State != Enrolled || !strings.HasPrefix(r.Accepted, tt.accepted) {
					t.Errorf("%s, %q", r.State, r.Accepted)
				}
			}
		})
	}
}

func TestApproval(t *testing.T) {
	ctx := context.Background()
	o, f := newOffice(t, Policy{}, nil), newForger(t)
	checkError(t, f.enroll(o), ErrPending)
	r := o.record(f.id())
	if r.State != Pending || r.Evidence == nil || r.Waits == "" || len(r.Certificates)+len(r.Keys) > 0 {
		t.Errorf("%+v", r)
	}
	o.verify(nil) // before a person decides
	checkError(t, f.enroll(o), ErrPending)
	o.restart()
	for name, want := range map[string]error{"with space": ErrName, strings.Repeat("x", 65): ErrName, "box,CN=admin": ErrName, "box-1": nil} {
		checkError(t, o.Approve(ctx, f.id(), name, ""), want)
	}
	if len(o.registered) > 0 {
		t.Error("it is registered before it came again")
	}
	if err := f.enroll(o); err != nil {
		t.Fatal(err)
	}
	if r := o.record(f.id()); r.Name != "box-1" || r.Waits != "" || len(o.registered["box-1"].Keys) != 1 {
		t.Errorf("%+v", r)
	}
	other := newForger(t)
	checkError(t, o.Approve(ctx, other.id(), "box-1", ""), ErrName)
	if _, err := o.Get(ctx, other.id()); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	o.verify(nil)

	// A new name brings a new certificate.
	if err := o.Approve(ctx, f.id(), "box-2", ""); err != nil {
		t.Fatal(err)
	}
	checkRevoked(t, o, f.id(), false) // until it comes again
	o.refuse = errors.New("directory is down")
	checkError(t, f.enroll(o), o.refuse)
	o.refuse = nil
	if err := f.enroll(o); err != nil {
		t.Fatal(err)
	}
	checkRevoked(t, o, f.id(), true, false)
	if len(o.withdrawn) != 1 || o.withdrawn[0].Name != "box-1" {
		t.Errorf("withdrawn %+v", o.withdrawn)
	}
	if r := o.record(f.id()); len(r.Certificates) != 2 || o.registered["box-2"].Keys[0].Certificate.Subject.CommonName != "box-2" {
		t.Errorf("%+v", r.Certificates)
	}
}

func TestRejection(t *testing.T) {
	ctx := context.Background()
	o, f := newOffice(t, Policy{}, nil), newForger(t)
	checkError(t, f.enroll(o), ErrPending)
	if err := o.Reject(ctx, f.id(), "not ours"); err != nil {
		t.Fatal(err)
	}
	checkError(t, f.enroll(o), ErrRejected)
	if err := o.Reinstate(ctx, f.id(), "ours after all"); err != nil {
		t.Fatal(err)
	}
	checkError(t, o.Reinstate(ctx, f.id(), ""), ErrState)
	checkError(t, f.enroll(o), ErrPending)
	if err := o.Approve(ctx, f.id(), "", ""); err != nil {
		t.Fatal(err)
	}
	if err := f.enroll(o); err != nil {
		t.Error(err)
	}
	checkError(t, o.Remove(ctx, f.id()), ErrState)
}

func TestPendingBound(t *testing.T) {
	ctx := context.Background()
	o := newOffice(t, Policy{}, func(c *Config) { c.MaxPending = 2 })
	a, b, c := newForger(t), newForger(t), newForger(t)
	checkError(t, a.enroll(o), ErrPending)
	checkError(t, b.enroll(o), ErrPending)
	checkError(t, c.enroll(o), ErrBusy)
	checkError(t, a.enroll(o), ErrPending) // it has its place
	if err := o.Remove(ctx, b.id()); err != nil {
		t.Fatal(err)
	}
	checkError(t, o.Remove(ctx, b.id()), ErrUnknown)
	checkError(t, c.enroll(o), ErrPending)
	if err := o.Approve(ctx, a.id(), "", ""); err != nil {
		t.Fatal(err)
	}
	checkError(t, b.enroll(o), ErrPending)
	list, err := o.List(ctx)
	if err != nil || len(list) != 3 {
		t.Errorf("%d records, %v", len(list), err)
	}
}

// TestSameAgain is a device whose last answer was lost, and one whose
// certificate ages.
func TestSameAgain(t *testing.T) {
	o, f := newOffice(t, accepting(), nil), newForger(t)
	for _, step := range []struct {
		after time.Duration
		want  int // certificates
	}{{0, 1}, {0, 1}, {200 * 24 * time.Hour, 1}, {100 * 24 * time.Hour, 2}, {0, 2}, {100 * 24 * time.Hour, 2}} {
		o.now = o.now.Add(step.after)
		if err := f.enroll(o); err != nil {
			t.Fatal(err)
		}
		r := o.record(f.id())
		if len(r.Certificates) != step.want || len(r.Keys) != 1 {
			t.Errorf("%d certificates, want %d", len(r.Certificates), step.want)
		}
		o.verify(nil)
	}
}

func TestHoldChanged(t *testing.T) {
	ctx := context.Background()
	o, f := newOffice(t, Policy{Monitor: false, HoldChanged: true}, nil), newForger(t)
	if err := o.Approve(ctx, f.id(), "box", ""); err != nil {
		t.Fatal(err)
	}
	if err := f.enroll(o); err != nil {
		t.Fatal(err)
	}
	old := f.key
	f.newKey()
	checkError(t, f.enroll(o), ErrPending)
	checkError(t, f.enroll(o), ErrPending)
	checkRevoked(t, o, f.id(), false) // the old key is in use until a person decides
	if err := o.Approve(ctx, f.id(), "", "it was repaired"); err != nil {
		t.Fatal(err)
	}
	if err := f.enroll(o); err != nil {
		t.Fatal(err)
	}
	checkRevoked(t, o, f.id(), true, false)

	// The enrolled key may vouch for the next one; the one before may not.
	second := f.key
	f.newKey()
	checkError(t, f.renew(o, old), ErrRenewal)
	checkError(t, f.renew(o, second), nil)
	checkRevoked(t, o, f.id(), true, true, false)
	checkError(t, f.renew(o, second), nil) // the answer was lost
	checkRevoked(t, o, f.id(), true, true, false)
	o.verify(nil)
}

// TestRegisterFirst lets the directory fail: the record must not say that the
// device is enrolled.
func TestRegisterFirst(t *testing.T) {
	o, f := newOffice(t, accepting(), nil), newForger(t)
	o.refuse = errors.New("directory is down")
	b := f.begin()
	message := proof.Encode(f.prove(b, f.ask(o, b)))
	response, err := o.Handle(context.Background(), message)
	checkError(t, err, o.refuse)
	_, err = proof.ParseResult(response)
	checkError(t, err, ErrInternal)
	if strings.Contains(string(response), "directory") {
		t.Error("the device hears of the authority's inside")
	}
	// Its keys are known, for the case that they were registered all the same.
	if r := o.record(f.id()); r.State != Pending || r.Registered != "" || len(r.Keys) != 1 || r.Keys[0].Current || len(r.Certificates) > 0 {
		t.Errorf("%+v", r)
	}
	o.refuse = nil
	if _, err := o.Handle(context.Background(), message); err != nil { // the challenge was not used
		t.Error(err)
	}
}

func TestWithoutCA(t *testing.T) {
	o, f := newOffice(t, accepting(), func(c *Config) { c.Certificate, c.Key = nil, nil }), newForger(t)
	for range 2 {
		if err := f.enroll(o); err != nil {
			t.Fatal(err)
		}
	}
	r := o.record(f.id())
	if len(r.Certificates) > 0 || !keystore.SamePublic(o.registered[r.Name].Keys[0].Public, f.key.Public()) {
		t.Errorf("%+v", r)
	}
	if _, err := o.CRL(context.Background()); err == nil {
		t.Error("a list without a CA")
	}
}

// TestAtOnce has many devices and operators act at the same time.
func TestAtOnce(t *testing.T) {
	ctx := context.Background()
	var mu sync.Mutex
	o := newOffice(t, accepting(), func(c *Config) {
		register := c.Register
		c.Register = func(ctx context.Context, id Identity) error {
			mu.Lock()
			defer mu.Unlock()
			return register(ctx, id)
		}
	})
	f := newForger(t)
	b := f.begin()
	message := proof.Encode(f.prove(b, f.ask(o, b)))
	var accepted atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := o.Handle(ctx, message); err == nil {
				accepted.Add(1)
			} else if !errors.Is(err, ErrStale) {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := newForger(t).enroll(o); err != nil {
				t.Error(err)
			}
			if _, err := o.CRL(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if accepted.Load() != 1 {
		t.Errorf("a challenge was used %d times", accepted.Load())
	}
	if list, err := o.List(ctx); err != nil || len(list) != 9 {
		t.Errorf("%d records, %v", len(list), err)
	}
	o.verify(nil)
}

func TestBadCA(t *testing.T) {
	o := newOffice(t, Policy{}, nil)
	for name, change := range map[string]func(*Config){
		"another key": func(c *Config) { c.Key = p256(t) },
		"no key":      func(c *Config) { c.Key = nil },
		"expired":     func(c *Config) { c.Time = func() time.Time { return o.now.Add(11 * 365 * 24 * time.Hour) } },
		"no CA":       func(c *Config) { c.Certificate = issuedTo(t, o) },
		"no records":  func(c *Config) { c.Records = nil },
	} {
		c := o.c
		change(&c)
		if _, err := NewAuthority(c); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
	if _, err := NewCA(p256(t), "", o.now, time.Hour); err == nil {
		t.Error("a CA without name")
	}
}

func issuedTo(t *testing.T, o *office) *x509.Certificate {
	t.Helper()
	f := newForger(t)
	if err := o.Approve(context.Background(), f.id(), "", ""); err != nil {
		t.Fatal(err)
	}
	if err := f.enroll(o); err != nil {
		t.Fatal(err)
	}
	return o.registered[defaultName(f.id())].Keys[0].Certificate
}

// uncountable are records that fail to count how many are pending.
type uncountable struct {
	Records
	err error
}

func (u uncountable) Update(ctx context.Context, fn func(Tx) error) error {
	return u.Records.Update(ctx, func(tx Tx) error { return fn(uncountableTx{tx, u.err}) })
}

type uncountableTx struct {
	Tx
	err error
}

func (u uncountableTx) Count(State) (int, error) { return 0, u.err }

// TestPendingUnread checks that the error is the real one, not that too many devices wait,
// if their number cannot be read.
func TestPendingUnread(t *testing.T) {
	o, f := newOffice(t, Policy{}, nil), newForger(t)
	o.Authority.ledger.records = uncountable{o.Authority.ledger.records, errors.New("disk")}
	err := f.enroll(o)
	if err == nil || errors.Is(err, ErrBusy) {
		t.Errorf("error %v", err)
	}
}
