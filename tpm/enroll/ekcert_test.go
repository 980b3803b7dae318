package enroll

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/msl-hsm/msl-hsm/tpm/makers"
)

// TestMakersCertificates reads certificates of real TPMs as they are in them.
func TestMakersCertificates(t *testing.T) {
	tests := map[string]struct {
		manufacturer, model string
		refused             string
	}{
		"infineon-rsa.der":     {manufacturer: "id:49465800", model: "SLB 9665"},
		"intel-rsa.der":        {manufacturer: "id:494E5443", model: "SPT"},
		"microsoft-pluton.der": {manufacturer: "id:4D534654", model: "Pluton.TPM.A"},
		"nuvoton-oaep.der":     {manufacturer: "id:57454300", model: "NPCT42x/NPCT50x"},
		"nuvoton-padded.der":   {manufacturer: "id:4E544300", model: "NPCT6xx"},
		"nuvoton-rsa.der":      {manufacturer: "id:4E544300", model: "NPCT6xx"},
		"st-header.der":        {manufacturer: "id:53544D20", model: "ST33ZP24PVSP"},
		"st-oaep.pem":          {manufacturer: "id:53544D20", model: "ST33ZP24PVSP"},
		"st-p256.der":          {manufacturer: "id:53544D20", model: "ST33HTPHAHB4"},
		"st-padded.der":        {manufacturer: "id:53544D20", model: "ST33HTPHAHB4"},
		"no-tpm-named.der":     {refused: "it does not say that it is of a TPM"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			data := readCase(t, name)
			e, err := ParseEKCertificate(data)
			if tt.refused != "" {
				checkError(t, err, ErrEKCertificate)
				if err == nil || !strings.Contains(err.Error(), tt.refused) {
					t.Errorf("%v, want %s", err, tt.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if e.Manufacturer != tt.manufacturer || e.Model != tt.model || e.Firmware == "" {
				t.Errorf("%q %q %q", e.Manufacturer, e.Model, e.Firmware)
			}
			if len(e.UnhandledCriticalExtensions) > 0 || e.NotAfter.Before(e.NotBefore) {
				t.Errorf("%v, %v to %v", e.UnhandledCriticalExtensions, e.NotBefore, e.NotAfter)
			}
			checkKeyOf(t, e.PublicKey)
		})
	}
	files, err := os.ReadDir(filepath.Join("testdata", "ek"))
	if err != nil || len(files) != len(tests) {
		t.Errorf("%d files, %d tests, %v", len(files), len(tests), err)
	}
}

func readCase(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "ek", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func checkKeyOf(t *testing.T, key crypto.PublicKey) {
	t.Helper()
	switch key := key.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() != 2048 || key.E != 65537 {
			t.Errorf("RSA key of %d bits, exponent %d", key.N.BitLen(), key.E)
		}
	case *ecdsa.PublicKey:
		if key.Curve.Params().BitSize != 256 {
			t.Errorf("curve %s", key.Curve.Params().Name)
		}
	default:
		t.Errorf("key %T", key)
	}
}

// parts are what makers got wrong, in DER.
type parts struct {
	serial, issuer, subject, key, name []byte
	extra                              []byte // further extensions
	version, validity, algorithm       []byte
	spell                              spelling
}

// issueOdd makes a certificate of parts, which the standard library would not make.
func (m *maker) issueOdd(ek crypto.PublicKey, change func(*parts)) []byte {
	m.t.Helper()
	key, err := x509.MarshalPKIXPublicKey(ek)
	if err != nil {
		m.t.Fatal(err)
	}
	p := parts{serial: []byte{2, 1, 7}, issuer: m.cert.RawSubject, subject: []byte{0x30, 0}, key: key, name: tpmName(m.t)}
	p.version = []byte{0xa0, 3, 2, 1, 2} // 3
	p.validity = sequence(func(b *cryptobyte.Builder) {
		b.AddASN1UTCTime(time.Now().Add(-time.Hour))
		b.AddASN1UTCTime(time.Now().Add(time.Hour))
	})
	p.algorithm = []byte{0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2} // ecdsa-with-SHA256
	p.spell = strict
	change(&p)
	body := sequence(func(b *cryptobyte.Builder) {
		b.AddBytes(p.version)
		b.AddBytes(p.serial)
		b.AddBytes(p.algorithm)
		b.AddBytes(p.issuer)
		b.AddBytes(p.validity)
		b.AddBytes(p.subject)
		b.AddBytes(p.key)
		b.AddASN1(asn1.Tag(3).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddBytes(sequence(func(b *cryptobyte.Builder) {
				if p.name != nil {
					b.AddBytes(extension([]byte{6, 3, 0x55, 0x1d, 0x11}, p.name)) // subjectAltName
				}
				b.AddBytes(p.extra)
			}))
		})
	})
	body = p.spell.all(body)
	digest := sha256.Sum256(body)
	var options crypto.SignerOpts = crypto.SHA256
	if bytes.Equal(p.algorithm, pss(32)) {
		options = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	}
	signature, err := m.key.Sign(rand.Reader, digest[:], options)
	if err != nil {
		m.t.Fatal(err)
	}
	var bits cryptobyte.Builder
	bits.AddASN1BitString(signature)
	return p.spell(0x30, slices.Concat(body, p.spell.all(p.algorithm), p.spell.all(bits.BytesOrPanic())))
}

func sequence(f cryptobyte.BuilderContinuation) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, f)
	return b.BytesOrPanic()
}

// extension makes a critical one, with the BOOLEAN as BER may have it.
func extension(oid, value []byte) []byte {
	return sequence(func(b *cryptobyte.Builder) {
		b.AddBytes(oid)
		b.AddBytes([]byte{1, 1, 1})
		b.AddASN1OctetString(value)
	})
}

// oaep says of an RSA key that it is for OAEP only (RFC 4055 section 4.1).
func oaep(key *rsa.PublicKey, parameters ...byte) []byte {
	return sequence(func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddBytes([]byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 7})
			b.AddBytes(parameters)
		})
		b.AddASN1BitString(x509.MarshalPKCS1PublicKey(key))
	})
}

// TestOddCertificates accepts what a maker signed, even if it is not as RFC 5280 has it.
func TestOddCertificates(t *testing.T) {
	m, f := newMaker(t, "Maker"), newForger(t)
	name := bytes.Replace(tpmName(t), []byte{19, 6, 'F', 'o', 'r', 'g', 'e', 'd'}, []byte{19, 6, 'F', 0xf6, '_', '@', 'e', 'd'}, 1)
	if bytes.Equal(name, tpmName(t)) {
		t.Fatal("no model in the name")
	}
	tests := []struct {
		name   string
		change func(*parts)
		want   error
	}{
		{"as it should be", func(*parts) {}, nil},
		{"negative serial", func(p *parts) { p.serial = []byte{2, 2, 0x80, 1} }, nil},
		{"zero serial", func(p *parts) { p.serial = []byte{2, 1, 0} }, nil},
		{"serial with leading zeros", func(p *parts) { p.serial = []byte{2, 3, 0, 0, 1} }, nil},
		{"serial of 40 bytes", func(p *parts) { p.serial = append([]byte{2, 40}, bytes.Repeat([]byte{0x11}, 40)...) }, nil},
		{"Latin-1 in a PrintableString", func(p *parts) { p.name = name }, nil},
		{"Latin-1 in the subject", func(p *parts) {
			p.subject = []byte{0x30, 14, 0x31, 12, 0x30, 10, 6, 3, 0x55, 4, 3, 19, 3, 'T', 0xfc, '_'}
		}, nil},
		{"issuer in UTF-8", func(p *parts) { p.issuer = commonName(12, "Maker") }, nil},
		{"issuer in other letters", func(p *parts) { p.issuer = commonName(19, " MAKER ") }, nil},
		{"issuer in BMPString", func(p *parts) { p.issuer = commonName(30, "\x00M\x00a\x00k\x00e\x00r") }, nil},
		{"issuer of another name", func(p *parts) { p.issuer = commonName(12, "Baker") }, ErrEKCertificate},
		{"issuer that is no name", func(p *parts) { p.issuer = []byte{0x30, 2, 5, 0} }, ErrEKCertificate},
		{"OAEP", func(p *parts) { p.key = oaep(&f.ek.PublicKey, 0x30, 0) }, nil},
		{"OAEP without parameters", func(p *parts) { p.key = oaep(&f.ek.PublicKey) }, nil},
		{"OAEP of another key", func(p *parts) { p.key = oaep(&newForger(t).ek.PublicKey) }, ErrEKCertificate},
		{"critical directory attributes", func(p *parts) { p.extra = extension([]byte{6, 3, 0x55, 0x1d, 9}, []byte{0x30, 0}) }, nil},
		{"critical key identifier", func(p *parts) { p.extra = extension([]byte{6, 3, 0x55, 0x1d, 14}, []byte{4, 1, 1}) }, nil},
		{"unknown critical extension", func(p *parts) {
			p.serial, p.extra = []byte{2, 1, 0x80}, extension([]byte{6, 3, 0x2a, 3, 4}, []byte{5, 0})
		}, ErrEKCertificate},
		{"of an authority", func(p *parts) {
			p.serial, p.extra = []byte{2, 1, 0x80}, extension([]byte{6, 3, 0x55, 0x1d, 19}, []byte{0x30, 3, 1, 1, 1})
		}, ErrEKCertificate},
		{"for signatures", func(p *parts) {
			p.serial, p.extra = []byte{2, 1, 0x80}, extension([]byte{6, 3, 0x55, 0x1d, 15}, []byte{3, 2, 7, 0x80})
		}, ErrEKCertificate},
		{"for servers", func(p *parts) {
			p.serial = []byte{2, 1, 0x80}
			p.extra = extension([]byte{6, 3, 0x55, 0x1d, 37}, []byte{0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1})
		}, ErrEKCertificate},
		{"key usage that is none", func(p *parts) { p.extra = extension([]byte{6, 3, 0x55, 0x1d, 15}, []byte{5, 0}) }, ErrEKCertificate},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := newOffice(t, Policy{Bundle: bundleOf(t, []*x509.Certificate{m.cert}), RefuseUnknown: true}, nil)
			der := m.issueOdd(f.ek.Public(), tt.change)
			f.certificates = [][]byte{der}
			checkError(t, f.enroll(o), tt.want)
			o.verify(pool(m.cert))
			if tt.want != nil {
				return
			}
			if r := o.record(f.id()); r.Accepted != "EK certificate" || r.Manufacturer != "id:54534554" {
				t.Errorf("%q of %q", r.Accepted, r.Manufacturer)
			}
			flipped := bytes.Clone(der) // the signature counts
			flipped[len(flipped)-1] ^= 1
			f.certificates = [][]byte{flipped}
			checkError(t, f.enroll(newOffice(t, o.c.Policy, nil)), ErrEKCertificate)
		})
	}
}

// commonName makes a Name with a string of a type.
func commonName(kind byte, text string) []byte {
	size := byte(len(text))
	return append([]byte{0x30, 11 + size, 0x31, 9 + size, 0x30, 7 + size, 6, 3, 0x55, 4, 3, kind, size}, text...)
}

// TestOddIssuers takes a certificate of an issuer that is not as RFC 5280 has it, and what it
// limits.
func TestOddIssuers(t *testing.T) {
	f, root, between, below := newForger(t), newMaker(t, "Maker"), newMaker(t, "Between"), newMaker(t, "Below")
	authority := func(value ...byte) []byte {
		return append(extension([]byte{6, 3, 0x55, 0x1d, 19}, value), extension([]byte{6, 3, 0x55, 0x1d, 15}, []byte{3, 2, 2, 4})...)
	}
	for name, tt := range map[string]struct {
		extra []byte
		deep  bool
		want  error
	}{
		"any length":       {authority(0x30, 3, 1, 1, 0xff), true, nil},
		"length 1":         {authority(0x30, 6, 1, 1, 0xff, 2, 1, 1), true, nil},
		"length 0":         {authority(0x30, 6, 1, 1, 0xff, 2, 1, 0), true, ErrEKCertificate},
		"length 0, enough": {authority(0x30, 6, 1, 1, 0xff, 2, 1, 0), false, nil},
		"length -1":        {authority(0x30, 6, 1, 1, 0xff, 2, 1, 0xff), false, ErrEKCertificate},
		"no authority":     {authority(0x30, 0), false, ErrEKCertificate},
		"nothing said":     {nil, false, ErrEKCertificate},
		"names limited":    {append(authority(0x30, 3, 1, 1, 0xff), extension([]byte{6, 3, 0x55, 0x1d, 30}, []byte{0x30, 0})...), false, ErrEKCertificate},
	} {
		t.Run(name, func(t *testing.T) {
			odd := root.issueOdd(between.key.Public(), func(p *parts) {
				p.serial, p.subject, p.name, p.extra = []byte{2, 2, 0x80, 1}, between.cert.RawSubject, nil, tt.extra
			})
			f.certificates = [][]byte{between.certify(f.ek.Public(), nil), odd}
			if tt.deep {
				second := between.issue(below.cert, below.key.Public(), between.cert)
				f.certificates = [][]byte{below.certify(f.ek.Public(), nil), second.Raw, odd}
			}
			o := newOffice(t, Policy{Bundle: bundleOf(t, []*x509.Certificate{root.cert}), RefuseUnknown: true}, nil)
			checkError(t, f.enroll(o), tt.want)
			o.verify(pool(root.cert))
		})
	}
}

// TestWrappedCertificates finds a certificate in what a TPM has around it.
func TestWrappedCertificates(t *testing.T) {
	m, f := newMaker(t, "Maker"), newForger(t)
	der := m.certify(f.ek.Public(), nil)
	size := len(der) + 2
	tests := map[string][]byte{
		"header of TPM 1.2": append([]byte{0x10, 1, 0, byte(size >> 8), byte(size), 0x10, 2}, der...),
		"header and fill":   append(append([]byte{0x10, 1, 0, byte(size >> 8), byte(size), 0x10, 2}, der...), bytes.Repeat([]byte{0xff}, 900)...),
		"size before":       append([]byte{byte(len(der) >> 8), byte(len(der))}, der...),
		"zero fill":         append(bytes.Clone(der), make([]byte, 500)...),
		"0xff fill":         append(bytes.Clone(der), bytes.Repeat([]byte{0xff}, 500)...),
		"PEM":               PEM("CERTIFICATE", der),
		"PEM and zero fill": append(PEM("CERTIFICATE", der), make([]byte, 100)...),
	}
	for name, data := range tests {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t, Policy{Bundle: bundleOf(t, []*x509.Certificate{m.cert}), RefuseUnknown: true}, nil)
			f.certificates = [][]byte{data}
			checkError(t, f.enroll(o), nil)
			o.verify(pool(m.cert))
		})
	}
	for name, data := range map[string][]byte{
		"nothing": nil, "cut off": der[:len(der)-1], "fill alone": bytes.Repeat([]byte{0xff}, 1000), "header alone": {0x10, 1, 0, 4, 0, 0x10, 2},
	} {
		if _, err := ParseEKCertificate(data); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

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

// TestMakersPaths leads certificates of real TPMs to the roots that are shipped.
func TestMakersPaths(t *testing.T) {
	bundle, err := ParseBundle(makers.PEM())
	if err != nil {
		t.Fatal(err)
	}
	for name, refused := range map[string]string{
		"infineon-rsa.der": "", "intel-rsa.der": "", "nuvoton-rsa.der": "", "st-p256.der": "", "st-padded.der": "",
		"microsoft-pluton.der": "unknown authority: issuer CN=PLUTON Firmware SVN04",
		"nuvoton-oaep.der":     "insecure algorithm SHA1-RSA",
		"st-header.der":        "insecure algorithm SHA1-RSA",
	} {
		e, err := ParseEKCertificate(readCase(t, name))
		if err != nil {
			t.Fatal(err)
		}
		at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
		way, err := bundle.verify(e, nil, at)
		switch {
		case refused == "" && (err != nil || len(way.chain) < 2 || !way.at.IsZero()):
			t.Errorf("%s: %v, %d", name, err, len(way.chain))
		case refused != "" && (err == nil || !strings.Contains(err.Error(), refused)):
			t.Errorf("%s: %v, want %s", name, err, refused)
		}
		if way, err = bundle.verify(e, nil, at.AddDate(30, 0, 0)); refused == "" && (err != nil || way.at.IsZero()) {
			t.Errorf("%s, late: %v, %v", name, err, way.at)
		}
	}
}
