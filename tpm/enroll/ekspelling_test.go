package enroll

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A spelling is a way to write the length of an element.
type spelling func(tag byte, inner []byte) []byte

// all spells elements and what is in them.
func (s spelling) all(in cryptobyte.String) (out []byte) {
	for !in.Empty() {
		var inner cryptobyte.String
		var tag asn1.Tag
		if !in.ReadAnyASN1(&inner, &tag) {
			panic("not in DER")
		}
		if tag&0x20 != 0 {
			inner = s.all(inner)
		}
		out = append(out, s(byte(tag), inner)...)
	}
	return out
}

func strict(tag byte, inner []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.Tag(tag), func(b *cryptobyte.Builder) { b.AddBytes(inner) })
	return b.BytesOrPanic()
}

// long has three or four bytes of a length where one is enough.
func long(tag byte, inner []byte) []byte {
	size := len(inner)
	if tag&0x20 == 0 {
		return append([]byte{tag, 0x83, 0, byte(size >> 8), byte(size)}, inner...)
	}
	return append([]byte{tag, 0x84, 0, 0, byte(size >> 8), byte(size)}, inner...)
}

// open has no length of what consists of elements.
func open(tag byte, inner []byte) []byte {
	if tag&0x20 == 0 {
		return strict(tag, inner)
	}
	return slices.Concat([]byte{tag, 0x80}, inner, []byte{0, 0})
}

// inParts has strings in two parts.
func inParts(tag byte, inner []byte) []byte {
	half := len(inner) / 2
	switch {
	case asn1.Tag(tag) == asn1.OCTET_STRING:
		return open(tag|0x20, append(strict(tag, inner[:half]), long(tag, inner[half:])...))
	case asn1.Tag(tag) == asn1.BIT_STRING && inner[0] == 0 && half > 0:
		return open(tag|0x20, append(strict(tag, inner[:half]), strict(tag, append([]byte{0}, inner[half:]...))...))
	}
	return strict(tag, inner)
}

// pss is the algorithm of a signature with SHA-256 and a salt.
func pss(salt byte) []byte {
	sha256 := []byte{0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0}
	return sequence(func(b *cryptobyte.Builder) {
		b.AddBytes([]byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10})
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddBytes(strict(0xa0, sha256))
			b.AddBytes(strict(0xa1, strict(0x30, append([]byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8}, sha256...))))
			b.AddBytes(strict(0xa2, []byte{2, 1, salt}))
		})
	})
}

// sign has the certificate signed with PSS and a salt of so many bytes.
func (p *parts) sign(salt int) { p.algorithm, p.salt = pss(byte(salt)), salt }

// times is a validity of two times, with a tag each.
func times(from string, fromTag byte, until string, untilTag byte) []byte {
	return strict(0x30, append(strict(fromTag, []byte(from)), strict(untilTag, []byte(until))...))
}

const utcTime, generalizedTime = byte(asn1.UTCTime), byte(asn1.GeneralizedTime)

// attributes is an alternative name with the attributes of a TPM, spelled in a way.
func attributes(maker string, kind byte, together bool) []byte {
	var all [][]byte
	for n, text := range []string{maker, "Model", "id:0001"} {
		all = append(all, strict(0x30, slices.Concat([]byte{6, 5, 0x67, 0x81, 5, 2, byte(n + 1)}, strict(kind, []byte(text)))))
		if !together {
			all[n] = strict(0x31, all[n])
		}
	}
	inner := slices.Concat(all...)
	if together {
		inner = strict(0x31, inner)
	}
	return strict(0x30, strict(0xa4, strict(0x30, inner)))
}

// withExtension adds one that is not critical. The serial number has it read by rules that are less strict than
// those of the standard library.
func withExtension(p *parts, oid []byte, value ...byte) {
	p.serial = []byte{2, 1, 0x80}
	p.extra = append(p.extra, strict(0x30, append(slices.Clone(oid), strict(4, value)...))...)
}

// TestSpellings reads certificates that are not spelled as DER, or RFC 5280, has it. One that
// cannot be used is ignored, with a reason, and does not override what an operator decided.
func TestSpellings(t *testing.T) {
	maker, f := newMaker(t, "Maker"), newForger(t)
	old := *maker
	var err error
	if old.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	template := *maker.cert
	template.SignatureAlgorithm, template.PublicKey = x509.SHA256WithRSA, old.key.Public()
	old.cert = old.issue(&template, old.key.Public(), &template)
	aia := []byte{6, 8, 0x2b, 6, 1, 5, 5, 7, 1, 1}
	for name, tt := range map[string]struct {
		change func(*parts)
		unused string // why, or nothing if it admits the device
	}{
		"lengths of four bytes":   {func(p *parts) { p.spell = long }, ""},
		"no lengths":              {func(p *parts) { p.spell = open }, ""},
		"strings in parts":        {func(p *parts) { p.spell = inParts }, ""},
		"signed with PSS":         {func(p *parts) { p.sign(32) }, ""},
		"PSS, odd serial number":  {func(p *parts) { p.sign(32); p.serial = []byte{2, 1, 0x80} }, ""},
		"PSS, long lengths":       {func(p *parts) { p.sign(32); p.spell = long }, ""},
		"PSS, salt of 20":         {func(p *parts) { p.sign(20) }, ""},
		"PSS, salt of 20, odd":    {func(p *parts) { p.sign(20); p.serial, p.spell = []byte{2, 1, 0x80}, open }, ""},
		"PSS, another salt":       {func(p *parts) { p.sign(20); p.salt = 21 }, ""},
		"PSS, a hash of nobody":   {func(p *parts) { p.sign(20); p.algorithm[29] = 9 }, "unknown authority"},
		"no version":              {func(p *parts) { p.version = nil }, ""},
		"version 1":               {func(p *parts) { p.version = []byte{0xa0, 3, 2, 1, 0} }, ""},
		"version 4":               {func(p *parts) { p.version = []byte{0xa0, 3, 2, 1, 3} }, ""},
		"empty serial number":     {func(p *parts) { p.serial = []byte{2, 0} }, ""},
		"no seconds":              {func(p *parts) { p.validity = times("2001010000Z", utcTime, "4901010000Z", utcTime) }, ""},
		"no seconds, generalized": {func(p *parts) { p.validity = times("202001010000Z", generalizedTime, "204901010000Z", generalizedTime) }, ""},
		"parts of seconds": {func(p *parts) {
			p.validity = times("20200101000000.5Z", generalizedTime, "20490101000000,25Z", generalizedTime)
		}, ""},
		"another time zone": {func(p *parts) {
			p.validity = times("200101000000+0200", utcTime, "20490101000000-0500", generalizedTime)
		}, ""},
		"no time zone":            {func(p *parts) { p.validity = times("200101000000", utcTime, "20490101000000", generalizedTime) }, ""},
		"UTCTime of four digits":  {func(p *parts) { p.validity = times("20200101000000Z", utcTime, "20550101000000Z", utcTime) }, ""},
		"generalized, two digits": {func(p *parts) { p.validity = times("200101000000Z", generalizedTime, "490101000000Z", generalizedTime) }, ""},
		"for ever":                {func(p *parts) { p.validity = times("200101000000Z", utcTime, "99991231235959Z", generalizedTime) }, ""},
		"for ever, no seconds":    {func(p *parts) { p.validity = times("200101000000Z", utcTime, "999912312359Z", generalizedTime) }, ""},
		"two digits after 2049":   {func(p *parts) { p.validity = times("200101000000Z", utcTime, "510101000000Z", utcTime) }, "expired"},
		"no time":                 {func(p *parts) { p.validity = times("", utcTime, "soon", utcTime) }, "malformed validity"},
		"TeletexString":           {func(p *parts) { p.issuer = commonName(20, "Maker") }, ""},
		"UniversalString": {func(p *parts) {
			p.issuer = commonName(28, "\x00\x00\x00M\x00\x00\x00a\x00\x00\x00k\x00\x00\x00e\x00\x00\x00r")
		}, ""},
		"odd BMPString":          {func(p *parts) { p.subject = commonName(30, "\x00M\xd8\x00a") }, ""},
		"odd UniversalString":    {func(p *parts) { p.subject = commonName(28, "\xff\xff\xff\xffab") }, ""},
		"odd IA5String":          {func(p *parts) { p.subject = commonName(22, "\xfc\x00\x80") }, ""},
		"no issuer":              {func(p *parts) { p.issuer = []byte{0x30, 0} }, "unknown authority: issuer"},
		"attributes in one set":  {func(p *parts) { p.name = attributes("id:54534554", 12, true) }, ""},
		"attributes in sets":     {func(p *parts) { p.name = attributes("id:54534554", 19, false) }, ""},
		"maker in lower case":    {func(p *parts) { p.name = attributes("ID:5453455", 12, true) }, ""},
		"OAEP for long":          {func(p *parts) { p.key, p.spell = oaep(&f.ek.PublicKey, 0x30, 0), long }, ""},
		"key for PSS":            {func(p *parts) { p.key = bytes.Replace(oaep(&f.ek.PublicKey), []byte{1, 1, 7}, []byte{1, 1, 10}, 1) }, ""},
		"key of unknown use":     {func(p *parts) { p.key = bytes.Replace(oaep(&f.ek.PublicKey), []byte{1, 1, 7}, []byte{1, 1, 99}, 1) }, "unknown algorithm"},
		"issuer by LDAP":         {func(p *parts) { withExtension(p, aia, authorityInfo("ldap://maker.example/cn=a b?c")...) }, ""},
		"damaged AIA":            {func(p *parts) { withExtension(p, aia, 0x30, 3, 1) }, ""},
		"AIA twice":              {func(p *parts) { withExtension(p, aia, 0x30, 0); withExtension(p, aia, 0x30, 0) }, ""},
		"usage twice":            {func(p *parts) { withExtension(p, usage, 3, 2, 5, 0x20); withExtension(p, usage, 3, 2, 5, 0x20) }, "two extensions"},
		"bits that do not count": {func(p *parts) { withExtension(p, usage, 3, 2, 5, 0x3f) }, ""},
		"empty usage":            {func(p *parts) { withExtension(p, usage, 3, 1, 0) }, ""},
		"no usage":               {func(p *parts) { withExtension(p, usage, 3, 0) }, "malformed extension"},
	} {
		t.Run(name, func(t *testing.T) {
			m, p := maker, parts{}
			if tt.change(&p); p.salt > 0 {
				m = &old
			}
			der := m.issueOdd(f.ek.Public(), tt.change)
			checkSpelled(t, f, m, der, tt.unused)
			checkSpelled(t, f, m, slices.Concat([]byte{0x10, 1, 0, 8, 0, 0x10, 2}, der, bytes.Repeat([]byte{0xff}, 300)), tt.unused)
		})
	}
}

var usage = []byte{6, 3, 0x55, 0x1d, 15}

func authorityInfo(url string) []byte {
	return strict(0x30, strict(0x30, append([]byte{6, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 2}, strict(0x86, []byte(url))...)))
}

// checkSpelled enrolls a device with a certificate.
func checkSpelled(t *testing.T, f *forger, m *maker, der []byte, unused string) {
	t.Helper()
	o := newOffice(t, Policy{Bundle: bundleOf(t, []*x509.Certificate{m.cert})}, nil)
	f.certificates = [][]byte{der}
	if unused == "" {
		checkError(t, f.enroll(o), nil)
		o.verify(pool(m.cert))
		if r := o.record(f.id()); r.Accepted != "EK certificate" || r.Manufacturer == "" {
			t.Errorf("%q of %q", r.Accepted, r.Manufacturer)
		}
		flipped := bytes.Clone(der) // the signature counts
		at := bytes.LastIndexFunc(bytes.TrimRight(der, "\xff"), func(r rune) bool { return r != 0 }) - 3
		flipped[at] ^= 4
		f.certificates = [][]byte{flipped}
		checkError(t, f.enroll(newOffice(t, Policy{Bundle: o.c.Policy.Bundle, RefuseUnknown: true}, nil)), ErrEKCertificate)
		return
	}
	checkError(t, f.enroll(o), ErrPending)
	if r := o.record(f.id()); !strings.Contains(r.Waits, "is not accepted: ") || !strings.Contains(r.Waits, unused) {
		t.Errorf("%q, want %q", r.Waits, unused)
	}
	checkError(t, o.Approve(t.Context(), f.id(), "box", ""), nil)
	checkError(t, f.enroll(o), nil)
}

// TestVendorCodes spells the codes of vendors alike.
func TestVendorCodes(t *testing.T) {
	for text, want := range map[string]string{
		"id:53544D20": "id:53544D20", "id:53544d20": "id:53544D20", "ID:53544d20": "id:53544D20", "53544d20": "id:53544D20",
		"0x53544D20": "id:53544D20", "id:5354": "id:5354", "STM": "STM", "": "",
	} {
		e := EKCertificate{}
		if !e.readName(attributes(text, 12, false)) || e.Manufacturer != want {
			t.Errorf("%q: %q, want %q", text, e.Manufacturer, want)
		}
	}
}

// TestOpenEnds finds certificates of which parts have no length, and gives up what has no end.
func TestOpenEnds(t *testing.T) {
	m, f := newMaker(t, "Maker"), newForger(t)
	der := m.issueOdd(f.ek.Public(), func(p *parts) { p.spell = open })
	second := m.certify(f.ek.Public(), nil)
	if found := proof.Certificates(slices.Concat([]byte{0, 0}, der, second, make([]byte, 9))); len(found) != 2 || !bytes.Equal(found[0], der) || !bytes.Equal(found[1], second) {
		t.Errorf("%d certificates", len(found))
	}
	for name, data := range map[string][]byte{
		"cut off": der[:len(der)-1], "deep": bytes.Repeat([]byte{0x30, 0x80}, 1<<20), "flat": append(bytes.Repeat([]byte{0x30, 0x80}, 20), bytes.Repeat([]byte{5, 0}, 1<<20)...),
	} {
		if found := proof.Certificates(data); len(found) != 0 {
			t.Errorf("%s: %d certificates", name, len(found))
		}
	}
}
