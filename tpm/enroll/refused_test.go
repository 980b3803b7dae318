package enroll

import (
	"bytes"
	"context"
	"crypto/x509"
	"log/slog"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// certified is a forger with a certificate of a maker that names where its own is: in a
// directory, and on the Web.
func certified(t testing.TB, m *maker) *forger {
	t.Helper()
	f := newForger(t)
	f.certificates = [][]byte{m.certify(f.ek.Public(), func(c *x509.Certificate) {
		c.IssuingCertificateURL = []string{"ldap://maker.example/cn=ca", "http://maker.example/ca.der"}
	})}
	return f
}

// decide goes through an exchange, and returns what was decided.
func (f *forger) decide(o *office) (Decision, error) {
	f.t.Helper()
	b := f.begin()
	_, d, err := o.Decide(f.t.Context(), proof.Encode(f.prove(b, f.ask(o, b))))
	return d, err
}

// TestDecisions tells of every device that proved its EK what was decided, and whose
// certificate it showed.
func TestDecisions(t *testing.T) {
	m := newMaker(t, "Maker")
	strangers := bundleOf(t, []*x509.Certificate{newMaker(t, "Another").cert})
	for name, c := range map[string]struct {
		policy Policy
		before func(*office, ID) error
		want   error
		state  State
		why    string
	}{
		"enrolled":  {Policy{Bundle: bundleOf(t, []*x509.Certificate{m.cert})}, nil, nil, Enrolled, "EK certificate"},
		"held":      {Policy{Bundle: strangers}, nil, ErrPending, Pending, "its EK certificate is not accepted: x509"},
		"refused":   {Policy{Bundle: strangers, RefuseUnknown: true}, nil, ErrEKCertificate, Refused, "unknown authority: issuer CN=Maker, http://maker.example/ca.der"},
		"wrong EK":  {Policy{Kinds: []EKKind{EKP256}}, nil, ErrPolicy, Refused, "EKs of kind rsa2048 are not accepted here"},
		"rejected":  {Policy{}, func(o *office, id ID) error { return o.Reject(context.Background(), id, "") }, ErrRejected, Rejected, "rejected"},
		"revoked":   {Policy{}, func(o *office, id ID) error { return o.RevokeDevice(context.Background(), id, "") }, ErrRevoked, Revoked, "revoked"},
		"monitored": {Policy{Monitor: true}, nil, nil, Enrolled, "monitoring only"},
	} {
		t.Run(name, func(t *testing.T) {
			o, f := newOffice(t, c.policy, nil), certified(t, m)
			if c.before != nil {
				checkError(t, c.before(o, f.id()), nil)
			}
			d, err := f.decide(o)
			checkError(t, err, c.want)
			if d.ID != f.id() || d.State != c.state || !strings.Contains(d.Why, c.why) || d.Name == "" {
				t.Errorf("%+v", d)
			}
			if seen := c.state != Rejected && c.state != Revoked; seen && (d.Issuer != "CN=Maker" || d.IssuerURL != "http://maker.example/ca.der" || d.Model == "") {
				t.Errorf("%+v", d)
			}
			r := o.record(f.id())
			if r.State != c.state || d.Issuer != r.Issuer || d.IssuerURL != r.IssuerURL {
				t.Errorf("the record is %s, of %s", r.State, r.Issuer)
			}
		})
	}
}

// TestDecisionLog has all that an operator needs, and nothing that is empty.
func TestDecisionLog(t *testing.T) {
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, nil))
	log.Info("a", "device", Decision{ID: ID{1}, State: Refused, Why: "for a reason", IssuerURL: "http://maker.example"})
	for _, want := range []string{"device.ek=01000000", "device.state=refused", `device.why="for a reason"`, "device.issuer_url=http://maker.example"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %s in %s", want, &text)
		}
	}
	if strings.Contains(text.String(), "device.model") || strings.Contains(text.String(), "renewed") {
		t.Errorf("%s", &text)
	}
}

// TestRefusedApproved lets a person approve a device that the policy refused, and changes
// nothing about one that was decided about before.
func TestRefusedApproved(t *testing.T) {
	ctx := context.Background()
	o, f := newOffice(t, Policy{RefuseUnknown: true}, nil), newForger(t)
	for range 2 {
		checkError(t, f.enroll(o), ErrPolicy)
	}
	if r := o.record(f.id()); len(r.Log) != 1 || r.Evidence == nil {
		t.Errorf("%+v", r.Log)
	}
	o.verify(nil)
	checkError(t, o.Approve(ctx, f.id(), "box", ""), nil)
	checkError(t, f.enroll(o), nil)
	o.c.Policy = Policy{Kinds: []EKKind{EKP256}}
	o.restart()
	if d, err := f.decide(o); err == nil || d.State != Enrolled {
		t.Errorf("%+v, %v", d, err)
	}
	if r := o.record(f.id()); r.State != Enrolled {
		t.Errorf("one that was enrolled is %s", r.State)
	}
	g := newForger(t)
	checkError(t, g.enroll(o), ErrPolicy)
	checkError(t, o.Remove(ctx, g.id()), nil)
}

// TestRefusedBound remembers the newest of the refused devices.
func TestRefusedBound(t *testing.T) {
	f, _, start := listed(t, 3)
	l := ledger{records: f}
	err := f.Update(t.Context(), func(tx Tx) (err error) {
		for i := range maxRefused {
			r := Record{ID: ID{0xff, byte(i >> 8), byte(i)}, State: Refused, Updated: start}
			if err == nil {
				err = tx.Put(r)
			}
		}
		return err
	})
	checkError(t, err, nil)
	for i := range 3 {
		checkError(t, l.putRefused(t.Context(), version{}, Record{ID: ID{0xaa, byte(i)}, State: Refused, Updated: start.AddDate(0, 0, 1)}), nil)
	}
	states, err := f.Check()
	if err != nil || states[Refused] != maxRefused || states[Enrolled]+states[Pending] != 3 {
		t.Errorf("%v, %v", states, err)
	}
	if _, _, err := l.find(t.Context(), ID{0xaa, 2}, start); err != nil {
		t.Error(err)
	}
}
