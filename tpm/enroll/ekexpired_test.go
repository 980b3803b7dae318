package enroll

import (
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestExpiredCertificates holds them, and asks nobody again who decided already.
func TestExpiredCertificates(t *testing.T) {
	m, f := newMaker(t, "Maker"), newForger(t)
	f.certificates = [][]byte{m.certify(f.ek.Public(), nil)}
	policy := Policy{Bundle: bundleOf(t, []*x509.Certificate{m.cert}), RefuseUnknown: true}
	for what, later := range map[string]time.Duration{"its own": 25 * time.Hour, "of its root": 101 * 24 * time.Hour} {
		t.Run(what, func(t *testing.T) {
			o := newOffice(t, policy, nil)
			checkError(t, f.enroll(o), nil)
			o.now = o.now.Add(later)
			checkError(t, f.enroll(o), nil) // the same keys
			if r := o.record(f.id()); r.State != Enrolled || r.Accepted != "EK certificate" {
				t.Errorf("%s, %q", r.State, r.Accepted)
			}

			late := newOffice(t, policy, nil)
			late.now = o.now
			checkError(t, f.enroll(late), ErrPending)
			if r := late.record(f.id()); r.Evidence.Chain == nil || !strings.Contains(r.Waits, "has expired") {
				t.Errorf("%q, %d", r.Waits, len(r.Evidence.Chain))
			}
			late.verify(pool(m.cert))
			checkError(t, late.Approve(t.Context(), f.id(), "box", ""), nil)
			checkError(t, f.enroll(late), nil)

			policy := policy
			policy.AcceptExpired = true
			mild := newOffice(t, policy, nil)
			mild.now = o.now
			checkError(t, f.enroll(mild), nil)
			mild.verify(pool(m.cert))
		})
	}
}

// TestExpiredAuthority has a maker whose authority was not valid yet when its certificates begin,
// and is not any more, until the maker certifies its key once more.
func TestExpiredAuthority(t *testing.T) {
	root, m, f := newMaker(t, "Root"), newMaker(t, "Maker"), newForger(t)
	day, now := 24*time.Hour, time.Now()
	certified := func(from, until time.Duration) []byte {
		template := *m.cert
		template.NotBefore, template.NotAfter = now.Add(from), now.Add(until)
		return root.issue(&template, m.key.Public(), root.cert).Raw
	}
	long := *root.cert
	long.NotBefore = now.Add(-1000 * day)
	root.cert = root.issue(&long, root.key.Public(), &long)
	ek := m.certify(f.ek.Public(), func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(-300*day), now.Add(300*day) })
	old, renewed := certified(-200*day, -100*day), certified(-10*day, 10*day)
	policy := Policy{Bundle: bundleOf(t, []*x509.Certificate{root.cert}), RefuseUnknown: true}
	for what, tt := range map[string]struct {
		above [][]byte
		want  error
	}{
		"expired": {[][]byte{old}, ErrPending}, "renewed": {[][]byte{old, renewed}, nil}, "renewed first": {[][]byte{renewed, old}, nil},
		"never": {nil, ErrEKCertificate},
	} {
		f.certificates = slices.Concat([][]byte{ek}, tt.above)
		o := newOffice(t, policy, nil)
		if err := f.enroll(o); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", what, err, tt.want)
		}
		if r := o.record(f.id()); tt.want == ErrPending && !strings.Contains(r.Waits, "has expired") {
			t.Errorf("%s: %q", what, r.Waits)
		}
		o.verify(pool(root.cert))
	}
}

// TestNeverValidTogether names the certificate that is to blame if there was no time at which all
// were valid, and the time by which it was checked.
func TestNeverValidTogether(t *testing.T) {
	root, m, f := newMaker(t, "Root"), newMaker(t, "Maker"), newForger(t)
	now := time.Now()
	early := *root.cert
	early.NotBefore = now.AddDate(-9, 0, 0)
	root.cert = root.issue(&early, root.key.Public(), &early)
	template := *m.cert
	template.NotBefore, template.NotAfter = now.AddDate(-9, 0, 0), now.AddDate(-3, 0, 0)
	above := root.issue(&template, m.key.Public(), root.cert)
	for what, tt := range map[string]struct {
		from, until time.Time
		want        string
	}{
		"issued later": {now.AddDate(-1, 0, 0), now.AddDate(1, 0, 0), "the certificate of CN=Maker: x509: certificate has expired or is not yet valid: current time "},
		"to come":      {now.AddDate(1, 0, 0), now.AddDate(2, 0, 0), "x509: certificate has expired or is not yet valid: current time "},
	} {
		ek := m.certify(f.ek.Public(), func(c *x509.Certificate) { c.NotBefore, c.NotAfter = tt.from, tt.until })
		f.certificates = [][]byte{ek, above.Raw}
		o := newOffice(t, Policy{Bundle: bundleOf(t, []*x509.Certificate{root.cert})}, nil)
		checkError(t, f.enroll(o), ErrPending)
		why, plain := strings.CutPrefix(o.record(f.id()).Waits, "its EK certificate is not accepted: ")
		if !plain || !strings.HasPrefix(why, tt.want+o.now.UTC().Format("2006-01-02")) {
			t.Errorf("%s: %q", what, why)
		}
	}
}
