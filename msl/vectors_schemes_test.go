package msl_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

// A schemed is authentication data or key data as it travels.
type schemed struct {
	Scheme      string
	AuthData    json.RawMessage
	KeyData     json.RawMessage
	MasterToken json.RawMessage
}

// localSchemes are the recorded entities' own sides.
func localSchemes(t *testing.T) map[string]msl.LocalEntity {
	store := newStore(t)
	psk := symmetric(t, store, pskClient1)
	signer := func(name string) crypto.Signer {
		return provisionPair(t, store, name, keystore.RSASign2048, keyPair(t, name)).(crypto.Signer)
	}
	return map[string]msl.LocalEntity{
		"PSK":  &entityauth.PSKEntity{Identity: "client1", Keys: entityauth.NewKeySet(psk.Encryption, psk.MAC, nil)},
		"RSA":  &entityauth.RSAEntity{Identity: "client5", KeyID: "rsakeyclient5", Key: signer("client5_rsa2048")},
		"X509": &entityauth.X509Entity{Certificate: certificate(t, "client7"), Key: signer("client7_rsa2048")},
		"NONE": &entityauth.NoneEntity{Identity: "client3"},
	}
}

func TestVectorsEntityAuthentication(t *testing.T) {
	var v struct {
		Cases []struct {
			Scheme, Identity            string
			Encrypts, ProtectsIntegrity bool
			Encoding                    encoding
		}
	}
	readVectors(t, "spec/entityauthdata.json", &v)
	peers := map[string]msl.EntityScheme{}
	for _, s := range newRecorded(t).server.Peers {
		peers[s.Scheme()] = s
	}
	local := localSchemes(t)
	seen := 0
	for _, c := range v.Cases {
		var data schemed
		if err := json.Unmarshal(c.Encoding.Bytes, &data); err != nil || data.Scheme != c.Scheme {
			t.Fatal(err, data.Scheme)
		}
		peer, us := peers[c.Scheme], local[c.Scheme]
		if peer == nil {
			continue
		}
		seen++
		if us.Encrypts() != c.Encrypts || us.Authenticates() != c.ProtectsIntegrity {
			t.Errorf("%s: another protection", c.Scheme)
		}
		own, err := us.Credentials(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if own.Identity != c.Identity {
			t.Errorf("%s: we are %q, want %q", c.Scheme, own.Identity, c.Identity)
		}
		sameObject(t, own.AuthData, data.AuthData)
		for _, authdata := range [][]byte{data.AuthData, own.AuthData} {
			checkSender(t, peer, own, authdata, c.Identity)
		}
	}
	if seen != 4 {
		t.Errorf("%d schemes", seen)
	}
}

// checkSender lets a peer open what own protects.
func checkSender(t *testing.T, peer msl.EntityScheme, own msl.Credentials, authdata []byte, identity string) {
	t.Helper()
	sender, release, err := peer.Open(context.Background(), authdata)
	if err != nil {
		t.Errorf("%s: %v", peer.Scheme(), err)
		return
	}
	defer release()
	if sender.Identity != identity || sender.Encrypted != encrypts(peer) || sender.Authenticated != authenticates(peer) {
		t.Errorf("%s: sender %+v", peer.Scheme(), sender)
	}
	data, err := own.Protector.Encrypt([]byte("hello"))
	signature, err2 := own.Protector.Sign(data)
	if err := errors.Join(err, err2, sender.Opener.Verify(data, signature)); err != nil {
		t.Errorf("%s: %v", peer.Scheme(), err)
	}
	if back, err := sender.Opener.Decrypt(data); err != nil || string(back) != "hello" {
		t.Errorf("%s: opened %q, %v", peer.Scheme(), back, err)
	}
}

func TestEntitySchemeErrors(t *testing.T) {
	r := newRecorded(t)
	peers := map[string]msl.EntityScheme{}
	for _, s := range r.server.Peers {
		peers[s.Scheme()] = s
	}
	r.directory["gone"] = &msl.Entity{Identity: "gone", Scheme: "PSK", Revoked: true}
	x509Data := func(der []byte) object { return object{"x509certificate": der} }
	for _, c := range []struct {
		scheme   string
		authdata any
		want     msl.Code
	}{
		{"PSK", object{}, msl.ErrMSLParseError},
		{"PSK", object{"identity": 1}, msl.ErrMSLParseError},
		{"PSK", object{"identity": "nobody"}, msl.ErrEntityNotFound},
		{"PSK", object{"identity": "client3"}, msl.ErrIncorrectEntityAuthData},
		{"PSK", object{"identity": "gone"}, msl.ErrEntityRevoked},
		{"RSA", object{"identity": "gone", "pubkeyid": "x"}, msl.ErrEntityRevoked},
		{"RSA", object{"identity": "client5"}, msl.ErrMSLParseError},
		{"RSA", object{"identity": "client5", "pubkeyid": "other"}, msl.ErrRSAPublicKeyNotFound},
		{"RSA", object{"identity": "nobody", "pubkeyid": "rsakeyclient5"}, msl.ErrRSAPublicKeyNotFound},
		{"RSA", object{"identity": "client1", "pubkeyid": "rsakeyclient5"}, msl.ErrIncorrectEntityAuthData},
		{"NONE", object{"identity": "gone"}, msl.ErrEntityRevoked},
		{"NONE", object{"identity": "client1"}, msl.ErrIncorrectEntityAuthData},
		{"NONE", object{"identity": "nobody"}, msl.ErrIncorrectEntityAuthData},
		{"X509", object{}, msl.ErrMSLParseError},
		{"X509", object{"x509certificate": "*"}, msl.ErrX509CertInvalid},
		{"X509", x509Data([]byte("x")), msl.ErrX509CertParseError},
		{"X509", x509Data(append(readFile(t, "keys/client7.crt.der"), 0)), msl.ErrX509CertParseError},
		{"X509", x509Data(changedCertificate(t)), msl.ErrX509CertVerificationFailed},
	} {
		_, release, err := peers[c.scheme].Open(context.Background(), encode(c.authdata))
		if !errors.Is(err, c.want) {
			t.Errorf("%s %s: %v, want %v", c.scheme, encode(c.authdata), err, c.want)
		}
		if err == nil {
			release()
		}
	}
}

// changedCertificate has a wrong signature.
func changedCertificate(t *testing.T) []byte {
	der := readFile(t, "keys/client7.crt.der")
	der[len(der)-1] ^= 1
	return der
}

func TestX509Checks(t *testing.T) {
	own := certificate(t, "client7")
	roots, others := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(certificate(t, "ca"))
	name := "CN=client7,O=MSL Test"
	valid := own.NotBefore.Add(time.Hour)
	for _, c := range []struct {
		name   string
		roots  *x509.CertPool
		now    time.Time
		entity *msl.Entity
		want   msl.Code
	}{
		{"valid", roots, valid, nil, -1},
		{"valid on its first second", roots, own.NotBefore, nil, -1},
		{"registered", roots, valid, &msl.Entity{Identity: name, Scheme: "X509"}, -1},
		{"not yet valid", roots, own.NotBefore.Add(-time.Second), nil, msl.ErrX509CertNotYetValid},
		{"expired", roots, own.NotAfter.Add(time.Second), nil, msl.ErrX509CertExpired},
		{"no trusted issuer", others, valid, nil, msl.ErrX509CertVerificationFailed},
		{"no roots", nil, valid, nil, msl.ErrX509CertVerificationFailed},
		{"revoked before expired", roots, own.NotAfter.Add(time.Second), &msl.Entity{Identity: name, Scheme: "X509", Revoked: true}, msl.ErrEntityRevoked},
		{"of another scheme", roots, valid, &msl.Entity{Identity: name, Scheme: "PSK"}, msl.ErrIncorrectEntityAuthData},
	} {
		d := directory{}
		if c.entity != nil {
			d[name] = c.entity
		}
		x := &entityauth.X509{Roots: c.roots, Directory: d, Time: func() time.Time { return c.now }}
		_, _, err := x.Open(context.Background(), encode(object{"x509certificate": own.Raw}))
		if c.want < 0 && err != nil || c.want >= 0 && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// rdn is one relative distinguished name of one attribute.
func rdn(t *testing.T, value any, oid ...int) asn1.RawValue {
	t.Helper()
	type attribute struct {
		Type  asn1.ObjectIdentifier
		Value any
	}
	der, err := asn1.MarshalWithParams([]attribute{{oid, value}}, "set")
	if err != nil {
		t.Fatal(err)
	}
	return asn1.RawValue{FullBytes: der}
}

func TestDistinguishedName(t *testing.T) {
	printable := func(s string) asn1.RawValue { return asn1.RawValue{Tag: asn1.TagPrintableString, Bytes: []byte(s)} }
	ia5 := asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte("a@b.c")}
	email, serial := []int{1, 2, 840, 113549, 1, 9, 1}, []int{2, 5, 4, 5}
	cn := []int{2, 5, 4, 3}
	for _, c := range []struct {
		want string
		rdns []asn1.RawValue
	}{
		{"", nil},
		{"CN=Duke,OU=JavaSoft,O=Sun Microsystems,C=US,1.2.840.113549.1.9.1=#16056140622e63,2.5.4.5=#13023132", []asn1.RawValue{
			rdn(t, printable("12"), serial...), rdn(t, ia5, email...), rdn(t, printable("US"), 2, 5, 4, 6),
			rdn(t, printable("Sun Microsystems"), 2, 5, 4, 10), rdn(t, printable("JavaSoft"), 2, 5, 4, 11), rdn(t, printable("Duke"), cn...)}},
		{`CN=a\,b\+c\"d\\e\<f\>g\;h`, []asn1.RawValue{rdn(t, `a,b+c"d\e<f>g;h`, cn...)}},
		{`CN=\ a b\ `, []asn1.RawValue{rdn(t, " a b ", cn...)}},
		{`CN=\#1\#a\=b`, []asn1.RawValue{rdn(t, "#1#a=b", cn...)}},
		{`CN=\ \ two\ \ `, []asn1.RawValue{rdn(t, "  two  ", cn...)}},
		{`CN=\ \ `, []asn1.RawValue{rdn(t, "  ", cn...)}},
		{`CN=`, []asn1.RawValue{rdn(t, "", cn...)}},
		{`CN=a\00b`, []asn1.RawValue{rdn(t, "a\x00b", cn...)}},
		{`CN=#1203313233`, []asn1.RawValue{rdn(t, asn1.RawValue{Tag: asn1.TagNumericString, Bytes: []byte("123")}, cn...)}},
		{"CN=Zoë €", []asn1.RawValue{rdn(t, "Zoë €", cn...)}},
		{"UID=u,DC=c,STREET=s,L=l,ST=t", []asn1.RawValue{rdn(t, "t", 2, 5, 4, 8), rdn(t, "l", 2, 5, 4, 7), rdn(t, "s", 2, 5, 4, 9),
			rdn(t, asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte("c")}, 0, 9, 2342, 19200300, 100, 1, 25), rdn(t, "u", 0, 9, 2342, 19200300, 100, 1, 1)}},
		{"CN=#0403616263", []asn1.RawValue{rdn(t, []byte("abc"), cn...)}},
	} {
		if c.rdns == nil {
			c.rdns = []asn1.RawValue{}
		}
		der, err := asn1.Marshal(c.rdns)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := entityauth.DistinguishedName(der); err != nil || got != c.want {
			t.Errorf("got %q, %v; want %q", got, err, c.want)
		}
		if _, err := entityauth.DistinguishedName(append(der, 0)); err == nil {
			t.Errorf("%q: a byte too many is accepted", c.want)
		}
	}
}

func TestVectorsUserAuthentication(t *testing.T) {
	var v struct {
		Cases []struct {
			Scheme, Email, Password string
			Encoding                encoding
		}
	}
	readVectors(t, "spec/userauthdata.json", &v)
	seen := 0
	for _, c := range v.Cases {
		var data schemed
		if err := json.Unmarshal(c.Encoding.Bytes, &data); err != nil {
			t.Fatal(err)
		}
		if c.Scheme != "EMAIL_PASSWORD" {
			continue
		}
		seen++
		own := userauth.EmailPasswordData(c.Email, []byte(c.Password))
		if own.Scheme != c.Scheme {
			t.Errorf("scheme %q", own.Scheme)
		}
		sameObject(t, own.AuthData, data.AuthData)
		for _, authdata := range [][]byte{data.AuthData, own.AuthData} {
			scheme := &userauth.EmailPassword{Verify: func(_ context.Context, email string, password []byte) (string, error) {
				if email != c.Email || string(password) != c.Password {
					return "", msl.ErrEmailPasswordIncorrect
				}
				return "user", nil
			}}
			if user, err := scheme.Authenticate(context.Background(), "client1", authdata); err != nil || user != "user" {
				t.Errorf("%s: %q, %v", authdata, user, err)
			}
		}
	}
	if seen != 2 {
		t.Errorf("%d cases", seen)
	}
}
