package entityauth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// An authority is a certificate and its key.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  crypto.Signer
}

var now = time.Unix(1700000000, 0)

func ecKey(t testing.TB, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a certificate with what change says; a nil parent signs itself.
func issue(t testing.TB, parent *authority, name string, key crypto.Signer, change func(*x509.Certificate)) *authority {
	t.Helper()
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	if change != nil {
		change(template)
	}
	from, signer := template, key
	if parent != nil {
		from, signer = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, from, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t, cert, key}
}

func asCA(c *x509.Certificate) {
	c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
}

func usage(u x509.KeyUsage) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.KeyUsage = u }
}

func extension(e pkix.Extension) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, e) }
}

// crl is a list of the authority, DER.
func (a *authority) crl(change func(*x509.RevocationList), revoked ...*authority) []byte {
	a.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(time.Hour)}
	for _, r := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: r.cert.SerialNumber, RevocationTime: now})
	}
	if change != nil {
		change(list)
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

func (a *authority) parsedCRL(change func(*x509.RevocationList), revoked ...*authority) *CRL {
	a.t.Helper()
	c, err := ParseCRL(a.crl(change, revoked...), a.cert)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

func pool(list ...*authority) *x509.CertPool {
	p := x509.NewCertPool()
	for _, a := range list {
		p.AddCert(a.cert)
	}
	return p
}

func certificateData(der []byte) []byte {
	return []byte(`{"x509certificate":"` + base64.StdEncoding.EncodeToString(der) + `"}`)
}

// A certificateCase is a peer and the expected verdict on it.
type certificateCase struct {
	name   string
	scheme X509
	peer   *authority
	want   msl.Code
	cause  string
}

func (c certificateCase) check(t *testing.T) {
	t.Helper()
	c.scheme.Time = func() time.Time { return now }
	s, _, err := c.scheme.Open(context.Background(), certificateData(c.peer.cert.Raw))
	if c.want < 0 {
		if err != nil || !s.Authenticated || s.Encrypted || s.Identity != "CN="+c.peer.cert.Subject.CommonName {
			t.Errorf("%s: %+v, %v", c.name, s, err)
		}
		return
	}
	var e *msl.Error
	if !errors.As(err, &e) || e.Code != c.want || !strings.Contains(err.Error(), c.cause) {
		t.Errorf("%s: %v, want %v because of %q", c.name, err, c.want, c.cause)
	}
}

func TestX509Chain(t *testing.T) {
	root := issue(t, nil, "root", ecKey(t, elliptic.P384()), asCA)
	sub := issue(t, root, "sub", ecKey(t, elliptic.P256()), asCA)
	noCA := issue(t, root, "no authority", ecKey(t, elliptic.P256()), nil)
	old := issue(t, root, "old", ecKey(t, elliptic.P256()), func(c *x509.Certificate) { asCA(c); c.NotAfter = now.Add(-time.Minute) })
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, _ := ed25519.GenerateKey(rand.Reader)
	leaf := func(parent *authority, change func(*x509.Certificate)) *authority {
		return issue(t, parent, "device", ecKey(t, elliptic.P256()), change)
	}
	roots, all := pool(root), pool(sub, noCA, old)
	unknown := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: []byte{5, 0}}
	critical := unknown
	critical.Critical = true
	for _, c := range []certificateCase{
		{"of the root", X509{Roots: roots}, leaf(root, nil), -1, ""},
		{"of an intermediate", X509{Roots: roots, Intermediates: all}, leaf(sub, nil), -1, ""},
		{"RSA key", X509{Roots: roots}, issue(t, root, "device", rsaKey, nil), -1, ""},
		{"Ed25519 key", X509{Roots: roots}, issue(t, root, "device", edKey, nil), msl.ErrX509CertParseError, "kind of public key"},
		{"missing intermediate", X509{Roots: roots}, leaf(sub, nil), msl.ErrX509CertVerificationFailed, "unknown authority"},
		{"an issuer that is no authority", X509{Roots: roots, Intermediates: all}, leaf(noCA, nil), msl.ErrX509CertVerificationFailed, ""},
		{"an intermediate that expired", X509{Roots: roots, Intermediates: all}, leaf(old, nil), msl.ErrX509CertVerificationFailed, ""},
		{"an intermediate is no root", X509{Roots: pool(), Intermediates: all}, leaf(sub, nil), msl.ErrX509CertVerificationFailed, ""},
		{"for signatures", X509{Roots: roots}, leaf(root, usage(x509.KeyUsageDigitalSignature|x509.KeyUsageKeyAgreement)), -1, ""},
		{"not for signatures", X509{Roots: roots}, leaf(root, usage(x509.KeyUsageKeyEncipherment)), msl.ErrX509CertVerificationFailed, "key usage"},
		{"for nothing", X509{Roots: roots}, leaf(root, extension(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: []byte{3, 1, 0}})), msl.ErrX509CertVerificationFailed, "key usage"},
		{"unknown extension", X509{Roots: roots}, leaf(root, extension(unknown)), -1, ""},
		{"unknown critical extension", X509{Roots: roots}, leaf(root, extension(critical)), msl.ErrX509CertVerificationFailed, "critical"},
		{"expired and not trusted", X509{Roots: pool()}, leaf(root, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }), msl.ErrX509CertExpired, ""},
		{"not yet valid and not trusted", X509{Roots: pool()}, leaf(root, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }), msl.ErrX509CertNotYetValid, ""},
	} {
		c.check(t)
	}
}

func TestX509Revocation(t *testing.T) {
	root := issue(t, nil, "root", ecKey(t, elliptic.P256()), asCA)
	sub := issue(t, root, "sub", ecKey(t, elliptic.P256()), asCA)
	leaf := issue(t, sub, "device", ecKey(t, elliptic.P256()), nil)
	expired := issue(t, sub, "old device", ecKey(t, elliptic.P256()), func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) })
	// An impostor has the name of the issuer and the serial number of the
	// certificate, and neither is a reason to call the device revoked.
	impostor := issue(t, nil, "sub", ecKey(t, elliptic.P256()), asCA)
	forged := issue(t, impostor, "device", ecKey(t, elliptic.P256()), func(c *x509.Certificate) { c.SerialNumber = leaf.cert.SerialNumber })
	stale := func(l *x509.RevocationList) {
		l.ThisUpdate, l.NextUpdate = now.Add(-2*time.Hour), now.Add(-time.Minute)
	}
	early := func(l *x509.RevocationList) {
		l.ThisUpdate, l.NextUpdate = now.Add(time.Minute), now.Add(time.Hour)
	}
	with := func(require bool, list ...*CRL) X509 {
		return X509{Roots: pool(root), Intermediates: pool(sub), RequireCRL: require, CRLs: func() []*CRL { return list }}
	}
	fresh, freshRoot := sub.parsedCRL(nil), root.parsedCRL(nil)
	for _, c := range []certificateCase{
		{"no lists", with(false), leaf, -1, ""},
		{"lists of all issuers", with(true, fresh, freshRoot), leaf, -1, ""},
		{"none of the root, and none needed", with(false, fresh), leaf, -1, ""},
		{"none of the root", with(true, fresh), leaf, msl.ErrX509CertVerificationFailed, `no revocation list of "CN=root"`},
		{"none of the issuer", with(true, freshRoot), leaf, msl.ErrX509CertVerificationFailed, `no revocation list of "CN=sub"`},
		{"revoked", with(false, sub.parsedCRL(nil, leaf)), leaf, msl.ErrEntityRevoked, "revocation list"},
		{"another one is revoked", with(false, sub.parsedCRL(nil, expired)), leaf, -1, ""},
		{"revoked before expired", with(false, sub.parsedCRL(nil, expired)), expired, msl.ErrEntityRevoked, ""},
		{"revoked by a list that is out of date", with(false, sub.parsedCRL(stale, leaf)), leaf, msl.ErrEntityRevoked, ""},
		{"revoked by one of two", with(false, fresh, sub.parsedCRL(nil, leaf)), leaf, msl.ErrEntityRevoked, ""},
		{"list out of date", with(false, sub.parsedCRL(stale)), leaf, msl.ErrX509CertVerificationFailed, "out of date since"},
		{"root's list out of date", with(false, fresh, root.parsedCRL(stale)), leaf, msl.ErrX509CertVerificationFailed, "out of date since"},
		{"list of tomorrow", with(false, sub.parsedCRL(early)), leaf, msl.ErrX509CertVerificationFailed, "starts at"},
		{"list out of date, and a new one", with(false, sub.parsedCRL(stale), fresh), leaf, -1, ""},
		{"issuer is revoked", with(false, root.parsedCRL(nil, sub)), leaf, msl.ErrX509CertVerificationFailed, `"CN=sub" is revoked`},
		{"forged with the serial number of a revoked one", with(false, sub.parsedCRL(nil, leaf)), forged, msl.ErrX509CertVerificationFailed, ""},
		{"list of an impostor", with(false, impostor.parsedCRL(nil, leaf)), leaf, -1, ""},
	} {
		c.check(t)
	}
	revokedToo := with(false, sub.parsedCRL(nil, leaf))
	revokedToo.Directory = oneEntity{Identity: "CN=device", Scheme: "PSK"}
	certificateCase{"revoked before another scheme", revokedToo, leaf, msl.ErrEntityRevoked, ""}.check(t)
}

// oneEntity is a directory of one.
type oneEntity msl.Entity

func (e oneEntity) Entity(context.Context, string) (*msl.Entity, error) {
	return (*msl.Entity)(&e), nil
}

// endless is a list that does not say when the next one comes.
func (a *authority) endless() []byte {
	a.t.Helper()
	var list pkix.CertificateList
	_, err := asn1.Unmarshal(a.crl(nil), &list)
	if err != nil {
		a.t.Fatal(err)
	}
	list.TBSCertList.Raw, list.TBSCertList.NextUpdate = nil, time.Time{}
	tbs, err := asn1.Marshal(list.TBSCertList)
	if err != nil {
		a.t.Fatal(err)
	}
	digest := sha256.Sum256(tbs)
	signature, err := a.key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		a.t.Fatal(err)
	}
	list.TBSCertList.Raw = tbs
	list.SignatureValue = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	der, err := asn1.Marshal(list)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

func TestParseCRL(t *testing.T) {
	root := issue(t, nil, "root", ecKey(t, elliptic.P256()), asCA)
	same := issue(t, nil, "root", ecKey(t, elliptic.P256()), asCA)
	other := issue(t, nil, "other", ecKey(t, elliptic.P256()), asCA)
	noCRL := issue(t, nil, "root", root.key, func(c *x509.Certificate) { asCA(c); c.KeyUsage = x509.KeyUsageCertSign })
	der := root.crl(nil, other)
	changed := append([]byte{}, der...)
	changed[len(changed)-1] ^= 1
	critical := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 0}}
	entry := func(l *x509.RevocationList) {
		l.RevokedCertificateEntries[0].ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{0x30, 0}}}
	}
	for _, c := range []struct {
		name    string
		data    []byte
		issuers []*x509.Certificate
		want    string
	}{
		{"DER", der, []*x509.Certificate{other.cert, root.cert}, ""},
		{"PEM", pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), []*x509.Certificate{same.cert, root.cert}, ""},
		{"PEM of something else", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil, `PEM of a "CERTIFICATE"`},
		{"no list", []byte("x"), nil, "malformed"},
		{"no issuer", der, nil, "not of a known issuer"},
		{"of another issuer", der, []*x509.Certificate{other.cert}, "not of a known issuer"},
		{"another key of the same name", der, []*x509.Certificate{same.cert}, "verification"},
		{"issuer that must not sign lists", der, []*x509.Certificate{noCRL.cert}, "cannot sign"},
		{"changed", changed, []*x509.Certificate{root.cert}, "verification"},
		{"without an end", root.endless(), []*x509.Certificate{root.cert}, "when it expires"},
		{"part of a list", root.crl(func(l *x509.RevocationList) { l.ExtraExtensions = []pkix.Extension{critical} }), []*x509.Certificate{root.cert}, "critical extension 2.5.29.28"},
		{"entry of another issuer", root.crl(entry, other), []*x509.Certificate{root.cert}, "critical extension 2.5.29.29"},
	} {
		got, err := ParseCRL(c.data, c.issuers...)
		if c.want == "" {
			if err != nil || !got.NextUpdate().Equal(now.Add(time.Hour)) || !got.lists(other.cert) || got.lists(root.cert) {
				t.Errorf("%s: %+v, %v", c.name, got, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
