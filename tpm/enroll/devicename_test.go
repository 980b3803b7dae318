package enroll

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// policyExtension is CertificatePolicies with these OIDs, of which each has a qualifier, the
// address of a statement.
func policyExtension(oids ...[]byte) []byte {
	return extension([]byte{6, 3, 0x55, 0x1d, 0x20}, sequence(func(b *cryptobyte.Builder) {
		for _, oid := range oids {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddBytes(oid)
				b.AddBytes(sequence(func(b *cryptobyte.Builder) {
					b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddBytes([]byte{6, 8, 0x2b, 6, 1, 5, 5, 7, 2, 1, 0x16, 3, 'u', 'r', 'l'})
					})
				}))
			})
		}
	}))
}

// usageExtension is ExtKeyUsage.
func usageExtension(oid []byte) []byte {
	return extension([]byte{6, 3, 0x55, 0x1d, 0x25}, append([]byte{0x30, byte(len(oid))}, oid...))
}

// verified is the OID 2.23.133.11.1.n.
func verified(n byte) []byte { return []byte{6, 6, 0x67, 0x81, 5, 11, 1, n} }

// TestDeviceCertificateAttests has the certificates of IAKs say in each way that their key is
// restricted, and those of other keys say less.
func TestDeviceCertificateAttests(t *testing.T) {
	m, f := newMaker(t, "Maker"), newForger(t)
	policy := Policy{Devices: bundleOf(t, []*x509.Certificate{m.cert})}
	for name, tt := range map[string]struct {
		extra []byte
		want  bool
	}{
		"nothing":                        {nil, false},
		"usage of an AIK":                {usageExtension([]byte{6, 5, 0x67, 0x81, 5, 8, 3}), true},
		"usage of an EK":                 {usageExtension([]byte{6, 5, 0x67, 0x81, 5, 8, 1}), false},
		"verified restriction":           {policyExtension(verified(1), verified(3)), true},
		"verified restriction, as usage": {usageExtension(verified(3)), true},
		"verified to be fixed":           {policyExtension(verified(1), verified(2)), false},
		"verified to be fixed, as usage": {usageExtension(verified(2)), false},
		"damaged policies":               {extension([]byte{6, 3, 0x55, 0x1d, 0x20}, []byte{0x30, 3, 0x30, 8, 6}), false},
	} {
		for _, serial := range [][]byte{{2, 1, 7}, {2, 1, 0x87}} { // the second is read by more than the standard library
			der := m.issueOdd(f.ak.Public(), func(p *parts) { p.extra, p.serial = tt.extra, serial })
			c := policy.claimDevice(&proof.DeviceProof{Certificates: [][]byte{der}, Key: tpm2.Marshal(f.pubs.ak)}, time.Now())
			if c.proves != tt.want || c.chain == nil && tt.want {
				t.Errorf("%s, serial %x: %+v", name, serial, c)
			}
			if unsaid := c.chain != nil && !tt.want; strings.Contains(c.remark(), "does not say that its key is restricted") != unsaid {
				t.Errorf("%s, serial %x: %q", name, serial, c.remark())
			}
		}
	}
}

// TestDeviceCertificateNamesChip reads the name of a TPM, also from a certificate that a real
// authority issued.
func TestDeviceCertificateNamesChip(t *testing.T) {
	m, f := newMaker(t, "Maker"), newForger(t)
	real, _ := hex.DecodeString("3081b6a04c06082b06010505070804a040303e06056781050102843530303030313031343a32663664353164623737333665636239326463646532323738303331633862316563633338376234" +
		"3a346435a02006082b06010505070803a01430120c1037383330366534653232303831633038a4443042311630140605678105020113" +
		"0b69643a30303030313031343110300e06056781050202130573777470" + "6d311630140605678105020313" + "0b69643a3230323430313235")
	for name, tt := range map[string]struct {
		san  []byte
		want string
	}{
		"none":          {nil, ""},
		"a real one":    {real, "00001014:2f6d51db7736ecb92dcde2278031c8b1ecc387b4:4d5"},
		"OCTET STRING":  {chipName(4, "IFX::1"), "IFX::1"},
		"bytes":         {chipName(4, "\xff\x01"), "ff01"},
		"other type":    {bytes.Replace(chipName(4, "IFX::1"), []byte{0x67, 0x81, 5, 1, 2}, []byte{0x67, 0x81, 5, 1, 1}, 1), ""},
		"cut":           {chipName(4, "IFX::1")[:20], ""},
		"of a TPM only": {tpmName(t), ""},
	} {
		der := m.issueOdd(f.ak.Public(), func(p *parts) { p.name = tt.san })
		if e, err := readCertificate(der); err != nil || e.chip() != tt.want {
			t.Errorf("%s: %q, %v", name, e.chip(), err)
		}
	}
}

// chipName is a subject alternative name with a HardwareModuleName, whose serial number has a tag.
func chipName(tag byte, serial string) []byte {
	return sequence(func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddBytes([]byte{6, 8, 0x2b, 6, 1, 5, 5, 7, 8, 4})
			b.AddASN1(asn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddBytes([]byte{6, 5, 0x67, 0x81, 5, 1, 2})
					b.AddASN1(asn1.Tag(tag), func(b *cryptobyte.Builder) { b.AddBytes([]byte(serial)) })
				})
			})
		})
	})
}

// TestCertificatesDisagree accepts a device whose EK certificate is another than the one that the
// certificate of its maker names, and says so to whoever looks.
func TestCertificatesDisagree(t *testing.T) {
	tpms, devices, f := newMaker(t, "TPMs"), newMaker(t, "Devices"), newForger(t)
	ekSerial, authority := big.NewInt(0x5aa), hex.EncodeToString(tpms.cert.SubjectKeyId)
	template := &x509.Certificate{SerialNumber: ekSerial, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtraExtensions: []pkix.Extension{{Id: subjectAltName(), Value: tpmName(t)}}}
	ek := tpms.issue(template, &f.ek.PublicKey, tpms.cert).Raw
	endorsement, err := proof.ParsePublic(tpm2.Marshal(f.pubs.ek))
	checkError(t, err, nil)
	both := Policy{Bundle: bundleOf(t, []*x509.Certificate{tpms.cert}), Devices: bundleOf(t, []*x509.Certificate{devices.cert})}
	onlyDevices, neither := Policy{Devices: both.Devices}, Policy{Bundle: bundleOf(t, []*x509.Certificate{devices.cert}), Devices: bundleOf(t, []*x509.Certificate{devices.cert})}
	for name, tt := range map[string]struct {
		named    string
		disagree bool
	}{
		"the same":                 {"54534554:" + authority + ":5aa", false},
		"in capitals, with zeros":  {"54534554:" + strings.ToUpper(authority) + ":05AA", false},
		"decimal":                  {"54534554::1450", false},
		"only the authority":       {"54534554:" + authority + ":", false},
		"another serial":           {"54534554:" + authority + ":5ab", true},
		"another authority":        {"54534554:00" + authority + ":5aa", true},
		"a digest of the EK":       {"5aa5aa5aa", false},
		"not this form":            {"a:b:c:d", false},
		"a name of the machine":    {"", false},
		"several lines":            {"a:b:c\nd", false},
		"another maker, and other": {"494658:0011:77", true},
	} {
		for usage, attests := range map[string]bool{"IAK": true, "IDevID": false} {
			iak := devices.issueOdd(f.ak.Public(), func(p *parts) {
				p.name, p.subject = chipName(4, tt.named), commonName(12, "box-7")
				if attests {
					p.extra = policyExtension(verified(3))
				}
			})
			p := &proof.Proof{Begin: proof.Begin{EKCertificates: [][]byte{ek}}, Device: &proof.DeviceProof{Certificates: [][]byte{iak}, Key: tpm2.Marshal(f.pubs.ak)}}
			for _, policy := range []Policy{both, onlyDevices, neither} {
				v, err := policy.judge(&Record{}, p, &proof.Offered{EK: endorsement}, time.Now())
				said := v.accepted + v.waits
				want := fmt.Sprintf("names the TPM %s, but the EK certificate has serial number 5aa", tt.named)
				if err != nil || strings.Contains(said, "names the TPM") != tt.disagree || tt.disagree && !strings.Contains(said, want) {
					t.Errorf("%s, %s: %q, %v", name, usage, said, err)
				}
				if accepted := policy.Bundle.Roots == both.Bundle.Roots || attests; accepted != (v.accepted != "") {
					t.Errorf("%s, %s: accepted %q, waits %q", name, usage, v.accepted, v.waits)
				}
			}
		}
	}
}
