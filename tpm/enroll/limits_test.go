package enroll

import (
	"bytes"
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// TestLimits finds the same paths below an authority that limits names and policies, and to the
// same certificates, whether they are in strict DER or not.
func TestLimits(t *testing.T) {
	m, f := newMaker(t, "Maker"), newForger(t)
	authority := field("\x06\x03\x55\x1d\x13", true, 0x30, 3, 1, 1, 0xff)
	const anyPolicy = "\x06\x04\x55\x1d\x20\x00"
	policy := func(id string) []byte { return field(policiesOID, false, strict(0x30, strict(0x30, []byte(id)))...) }
	required := func(critical bool) []byte { return field(constraintsOID, critical, 0x30, 3, 0x80, 1, 0) }
	names := func(critical bool, tag byte, name string) []byte {
		return field("\x06\x03\x55\x1d\x1e", critical, strict(0x30, strict(0xa0, strict(0x30, strict(tag, []byte(name)))))...)
	}
	noAny := field("\x06\x03\x55\x1d\x36", true, 2, 1, 0)
	mapped := field("\x06\x03\x55\x1d\x21", true, strict(0x30, strict(0x30, slices.Concat([]byte(ekUsageOID), []byte("\x06\x03\x2a\x03\x04"))))...)
	host := func(name string) []byte { return strict(0x30, strict(0x82, []byte(name))) }
	for name, tt := range map[string]struct {
		above, below []byte // extensions of the authority and of the certificate
		san          []byte // instead of the name of the TPM
		want         bool
	}{
		"none":                            {nil, nil, nil, true},
		"a policy, as required":           {append(policy(ekUsageOID), required(true)...), policy(ekUsageOID), nil, true},
		"another one":                     {append(policy(ekUsageOID), required(true)...), policy("\x06\x03\x2a\x03\x04"), nil, false},
		"no policy":                       {append(policy(ekUsageOID), required(true)...), nil, nil, false},
		"required, and not critical":      {append(policy(ekUsageOID), required(false)...), nil, nil, false},
		"the authority has none":          {required(true), policy(ekUsageOID), nil, false},
		"any":                             {append(policy(anyPolicy), required(true)...), policy(ekUsageOID), nil, true},
		"any, which is inhibited":         {slices.Concat(policy(anyPolicy), required(true), noAny), policy(anyPolicy), nil, false},
		"mapped":                          {slices.Concat(policy(ekUsageOID), required(true), mapped), policy("\x06\x03\x2a\x03\x04"), nil, true},
		"required by itself":              {nil, required(true), nil, false},
		"policies limited by no sequence": {field(constraintsOID, true, 5, 0), policy(ekUsageOID), nil, false},
		"within hosts":                    {names(true, 0x82, "tpm.example"), nil, host("a.tpm.example"), true},
		"beyond hosts":                    {names(true, 0x82, "tpm.example"), nil, host("a.tpm.test"), false},
		"beyond, and not critical":        {names(false, 0x82, "tpm.example"), nil, host("a.tpm.test"), false},
		"names that are none":             {names(true, 0x82, "tpm.example"), nil, strict(0x30, strict(0x87, []byte{1, 2, 3})), false},
		"within directories":              {names(true, 0xa4, "\x30\x00"), nil, nil, false},
		"directories, and not critical":   {names(false, 0xa4, "\x30\x00"), nil, nil, false},
	} {
		for _, odd := range [][2]byte{{7, 7}, {0x80, 7}, {7, 0x80}, {0x80, 0x80}} {
			middle := &maker{t: t, key: p256(t)}
			above := m.issueOdd(middle.key.Public(), func(p *parts) {
				p.serial, p.subject, p.name, p.extra = []byte{2, 1, odd[0]}, commonName(12, "Middle"), nil, append(slices.Clone(authority), tt.above...)
			})
			var err error
			if middle.cert, err = proof.ParseCertificate(above); err != nil && tt.want {
				t.Fatal(err)
			} else if err != nil {
				continue
			}
			below := middle.issueOdd(f.ek.Public(), func(p *parts) {
				san, usage := p.name, field(extUsageOID, false, strict(0x30, []byte(ekUsageOID))...)
				if tt.san != nil {
					san = tt.san
				}
				p.serial, p.name, p.extra = []byte{2, 1, odd[1]}, nil, slices.Concat(usage, field(altNameOID, false, san...), tt.below)
			})
			e, err := ParseEKCertificate(below)
			if err == nil {
				_, err = bundleOf(t, []*x509.Certificate{m.cert}).verify(e, [][]byte{above}, time.Now())
			}
			if (err == nil) != tt.want {
				t.Errorf("%s, serial numbers %x: %v", name, odd, err)
			}
		}
	}
}

// maxIssued bounds what one device makes the CA sign.
func TestManyCertificates(t *testing.T) {
	o, f := newOffice(t, accepting(), nil), newForger(t)
	for range maxIssued {
		if err := f.enroll(o); err != nil {
			t.Fatal(err)
		}
		f.newKey()
	}
	err := f.enroll(o)
	checkError(t, err, ErrBusy)
	_, text, _ := strings.Cut(err.Error(), "64 keys or certificates: try again after ")
	day, _, _ := strings.Cut(text, ",")
	until, err := time.Parse(time.DateTime, day)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	o.now = until.Add(-time.Hour)
	checkError(t, f.enroll(o), ErrBusy)
	o.now = until.Add(time.Second)
	if err := f.enroll(o); err != nil {
		t.Error(err)
	}
	if r := o.record(f.id()); len(r.Certificates) != 1 || len(r.Keys) != 2 || len(r.Log) != maxEvents {
		t.Errorf("%d certificates, %d keys, %d events", len(r.Certificates), len(r.Keys), len(r.Log))
	}
}

// TestFullOfKeys names a time to a device that is full of keys, those in use among them. It may
// offer those again.
func TestFullOfKeys(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	r := Record{Keys: []Key{{Name: []byte("used"), Current: true}}}
	for i := range maxIssued - 1 {
		retired := now.Add(time.Duration(i) * time.Hour)
		r.Keys = append(r.Keys, Key{Retired: &retired})
	}
	if err := r.room([][]byte{[]byte("used")}); err != nil {
		t.Error(err)
	}
	for _, tt := range []struct{ offered, want string }{{"a", "2026-05-30 00:00:00"}, {"ab", "2026-05-30 01:00:00"}} {
		if err := r.room(bytes.SplitAfter([]byte(tt.offered), nil)); err == nil || !strings.Contains(err.Error(), "after "+tt.want) {
			t.Errorf("%s: %v", tt.offered, err)
		}
	}
}
