package enroll

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// explicit writes a key with the parameters of its curve, of which the generator may be another.
func explicit(key *ecdsa.PrivateKey, generator []byte) []byte {
	c, point := key.Params(), func(x, y *big.Int) []byte {
		return bytes.Join([][]byte{{4}, x.FillBytes(make([]byte, 32)), y.FillBytes(make([]byte, 32))}, nil)
	}
	if generator == nil {
		generator = point(c.Gx, c.Gy)
	}
	return sequence(func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddBytes([]byte{6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1}) // id-ecPublicKey
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1Int64(1)
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddBytes([]byte{6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 1, 1}) // prime-field
					b.AddASN1BigInt(c.P)
				})
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1OctetString(new(big.Int).Sub(c.P, big.NewInt(3)).Bytes())
					b.AddASN1OctetString(c.B.Bytes())
				})
				b.AddASN1OctetString(generator)
				b.AddASN1BigInt(c.N)
				b.AddASN1Int64(1)
			})
		})
		b.AddASN1BitString(point(key.X, key.Y))
	})
}

// TestOddDeviceCertificates accepts of a maker of devices what it accepts of one of TPMs.
func TestOddDeviceCertificates(t *testing.T) {
	m, f := newMaker(t, "Maker"), newForger(t)
	policy := Policy{Devices: bundleOf(t, []*x509.Certificate{m.cert})}
	for name, tt := range map[string]struct {
		change func(*parts)
		word   string // of why it counts as none
	}{
		"as it should be":           {func(*parts) {}, ""},
		"negative serial":           {func(p *parts) { p.serial = []byte{2, 2, 0x80, 1} }, ""},
		"serial of 40 bytes":        {func(p *parts) { p.serial = append([]byte{2, 40}, bytes.Repeat([]byte{0x11}, 40)...) }, ""},
		"serial with leading zeros": {func(p *parts) { p.serial = []byte{2, 3, 0, 0, 1} }, ""},
		"Latin-1 in the subject": {func(p *parts) {
			p.subject = []byte{0x30, 14, 0x31, 12, 0x30, 10, 6, 3, 0x55, 4, 3, 19, 3, 'T', 0xfc, '_'}
		}, ""},
		"issuer in UTF-8":               {func(p *parts) { p.issuer = commonName(12, "Maker") }, ""},
		"critical directory attributes": {func(p *parts) { p.extra = extension([]byte{6, 3, 0x55, 0x1d, 9}, []byte{0x30, 0}) }, ""},
		"unknown critical extension": {func(p *parts) {
			p.serial, p.extra = []byte{2, 1, 0x80}, extension([]byte{6, 3, 0x2a, 3, 4}, []byte{5, 0})
		}, "critical extension"},
		"of an authority": {func(p *parts) {
			p.serial, p.extra = []byte{2, 1, 0x80}, extension([]byte{6, 3, 0x55, 0x1d, 19}, []byte{0x30, 3, 1, 1, 1})
		}, "a CA certificate"},
		"a curve that is written out": {func(p *parts) { p.key = explicit(f.ak, nil) }, ""},
		"another generator":           {func(p *parts) { p.key = explicit(f.ak, []byte{4}) }, "unknown algorithm"},
		"of another key":              {func(p *parts) { p.serial, p.key = []byte{2, 1, 0x80}, oaep(&f.ek.PublicKey) }, "for another key"},
		"for signatures":              {func(p *parts) { p.extra = extension([]byte{6, 3, 0x55, 0x1d, 15}, []byte{3, 2, 7, 0x80}) }, ""},
		"for non-repudiation":         {func(p *parts) { p.extra = extension([]byte{6, 3, 0x55, 0x1d, 15}, []byte{3, 2, 6, 0x40}) }, ""},
		"for encryption only":         {func(p *parts) { p.extra = extension([]byte{6, 3, 0x55, 0x1d, 15}, []byte{3, 2, 5, 0x20}) }, "does not permit signatures"},
		"two usages": {func(p *parts) {
			usage := extension([]byte{6, 3, 0x55, 0x1d, 15}, []byte{3, 2, 7, 0x80})
			p.serial, p.extra = []byte{2, 1, 0x80}, append(usage, usage...)
		}, "two extensions"},
	} {
		der := m.issueOdd(f.ak.Public(), tt.change)
		for what, data := range map[string][]byte{"": der, ", padded": append(bytes.Clone(der), 0xff, 0xff)} {
			c := policy.claimDevice(&proof.DeviceProof{Certificates: [][]byte{data}, Key: tpm2.Marshal(f.pubs.ak)}, time.Now())
			if (c.chain != nil) != (tt.word == "") || !strings.Contains(c.unused, tt.word) {
				t.Errorf("%s%s: %d certificates, %q", name, what, len(c.chain), c.unused)
			}
		}
	}
}

// TestExpiredDeviceCertificates holds devices whose IAK has a certificate that expired, as those
// whose EK has one.
func TestExpiredDeviceCertificates(t *testing.T) {
	m, f := newMaker(t, "Maker"), newForger(t)
	usage := extension([]byte{6, 3, 0x55, 0x1d, 37}, []byte{0x30, 7, 6, 5, 0x67, 0x81, 5, 8, 3})
	der := m.issueOdd(f.ak.Public(), func(p *parts) { p.extra = usage })
	shown := &proof.DeviceProof{Certificates: [][]byte{der}, Key: tpm2.Marshal(f.pubs.ak)}
	policy := Policy{Devices: bundleOf(t, []*x509.Certificate{m.cert}), RefuseUnknown: true}
	mild := policy
	mild.AcceptExpired = true
	late := time.Now().Add(48 * time.Hour)
	for what, tt := range map[string]struct {
		policy          Policy
		record          Record
		now             time.Time
		accepted, waits string
	}{
		"in time":            {policy, Record{}, time.Now(), "certificate of the device's maker: ", ""},
		"late":               {policy, Record{}, late, "", "its certificate of the device's maker, or a certificate above it, has expired"},
		"late, and enrolled": {policy, Record{State: Enrolled, Accepted: "as before"}, late, "as before", ""},
		"late, and accepted": {mild, Record{}, late, "expired certificate of the device's maker", ""},
	} {
		c := claim{device: tt.policy.claimDevice(shown, tt.now)}
		v, err := tt.policy.accept(&tt.record, c, &proof.Offered{}, false)
		if err != nil || !strings.HasPrefix(v.accepted, tt.accepted) || !strings.HasPrefix(v.waits, tt.waits) || (v.waits == "") != (tt.waits == "") {
			t.Errorf("%s: %q, %q, %v", what, v.accepted, v.waits, err)
		}
		e := &Evidence{DeviceChain: c.device.chain, Checked: tt.now, DeviceExpired: c.device.at}
		checkError(t, Verifier{DeviceRoots: pool(m.cert)}.verifyDevice(e, &proof.Proof{Device: shown}), nil)
		e.DeviceExpired = late
		checkError(t, Verifier{DeviceRoots: pool(m.cert)}.verifyDevice(e, &proof.Proof{Device: shown}), ErrEKCertificate)
	}
}
