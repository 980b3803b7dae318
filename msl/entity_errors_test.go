package msl_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// A schemeCase is authdata and a scheme's verdict on it.
type schemeCase struct {
	name     string
	authdata any
	want     msl.Code
}

func (r *recorded) checkScheme(t *testing.T, scheme msl.EntityScheme, cases []schemeCase) {
	t.Helper()
	for _, c := range cases {
		_, release, err := scheme.Open(context.Background(), encode(c.authdata))
		var e *msl.Error
		if !errors.As(err, &e) || e.Code != c.want {
			t.Errorf("%s, %s: %v, want %v", scheme.Scheme(), c.name, err, c.want)
		}
		if err == nil {
			release()
		}
	}
}

func TestPSKProfileErrors(t *testing.T) {
	r := newWide(t)
	d := r.peer("PSK_PROFILE").(*entityauth.PSKProfile).KeySets.Directory.(directory)
	d["gone"] = &msl.Entity{Identity: "gone", Scheme: "PSK", Revoked: true}
	d["other"] = &msl.Entity{Identity: "other", Scheme: "PSK"}
	d["keyless"] = &msl.Entity{Identity: "keyless", Scheme: "PSK_PROFILE"}
	d["client1-psk"] = &msl.Entity{Identity: "client1-psk", Scheme: "PSK"}
	of := func(id string) object { return object{"pskid": id, "profile": "p"} }
	r.checkScheme(t, r.peer("PSK_PROFILE"), []schemeCase{
		{"no profile", object{"pskid": "client1"}, msl.ErrMSLParseError},
		{"no key id", object{"profile": "p"}, msl.ErrMSLParseError},
		{"a number", object{"pskid": 1, "profile": "p"}, msl.ErrMSLParseError},
		{"revoked before another scheme", of("gone"), msl.ErrEntityRevoked},
		{"another scheme", of("other"), msl.ErrIncorrectEntityAuthData},
		{"without keys", of("keyless"), msl.ErrEntityNotFound},
		{"unknown", of("nobody"), msl.ErrEntityNotFound},
		{"somebody else's identity", object{"pskid": "client1", "profile": "psk"}, msl.ErrIncorrectEntityAuthData},
		{"the whole identity", of("client1-profile1"), msl.ErrEntityNotFound},
	})
	r.checkScheme(t, &entityauth.PSKProfile{}, []schemeCase{{"no peers", of("client1"), msl.ErrEntityNotFound}})
}

func TestECCErrors(t *testing.T) {
	r := newWide(t)
	small, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r.directory["gone"] = &msl.Entity{Identity: "gone", Scheme: "ECC", Revoked: true}
	r.directory["small"] = &msl.Entity{Identity: "small", Scheme: "ECC", KeyID: "k", PublicKey: small.Public()}
	r.directory["rsa"] = &msl.Entity{Identity: "rsa", Scheme: "ECC", KeyID: "k", PublicKey: publicKey(t, "client5_rsa2048")}
	of := func(identity, key string) object { return object{"identity": identity, "pubkeyid": key} }
	r.checkScheme(t, r.peer("ECC"), []schemeCase{
		{"no key id", object{"identity": "client8"}, msl.ErrMSLParseError},
		{"revoked", of("gone", "k"), msl.ErrEntityRevoked},
		{"another scheme", of("client5", "rsakeyclient5"), msl.ErrIncorrectEntityAuthData},
		{"another key id", of("client8", "k"), msl.ErrECCPublicKeyNotFound},
		{"unknown", of("nobody", "eccclient8"), msl.ErrECCPublicKeyNotFound},
		{"a curve that is not supported", of("small", "k"), msl.ErrECCPublicKeyNotFound},
		{"an RSA key", of("rsa", "k"), msl.ErrECCPublicKeyNotFound},
	})
}

func TestNoneSuffixedErrors(t *testing.T) {
	r := newWide(t)
	r.directory["gone"] = &msl.Entity{Identity: "gone", Scheme: "NONE_SUFFIXED", Revoked: true}
	r.directory["client4.gone"] = &msl.Entity{Identity: "client4.gone", Scheme: "NONE_SUFFIXED", Revoked: true}
	r.directory["client4.psk"] = &msl.Entity{Identity: "client4.psk", Scheme: "PSK"}
	of := func(root, suffix string) object { return object{"root": root, "suffix": suffix} }
	r.checkScheme(t, r.peer("NONE_SUFFIXED"), []schemeCase{
		{"no suffix", object{"root": "client4"}, msl.ErrMSLParseError},
		{"no root", object{"suffix": "1"}, msl.ErrMSLParseError},
		{"revoked", of("gone", "1"), msl.ErrEntityRevoked},
		{"another scheme", of("client1", "1"), msl.ErrIncorrectEntityAuthData},
		{"unknown", of("nobody", "1"), msl.ErrIncorrectEntityAuthData},
		{"somebody else's identity", of("client4", "psk"), msl.ErrIncorrectEntityAuthData},
	})
	// Only the root is looked up.
	for scheme, data := range map[*entityauth.NoneSuffixed]object{
		{Directory: r.directory}: of("client4", "gone"),
		{Anyone: true}:           of("nobody", "1"),
	} {
		if s, _, err := scheme.Open(context.Background(), encode(data)); err != nil || s.Encrypted || s.Authenticated {
			t.Errorf("%+v, %v", s, err)
		}
	}
}

func TestProvisionedErrors(t *testing.T) {
	r := newWide(t)
	empty := &entityauth.Provisioned{Assign: func(context.Context) (string, error) { return "", nil }}
	failing := &entityauth.Provisioned{Assign: func(context.Context) (string, error) { return "", errors.New("database is down") }}
	r.checkScheme(t, &entityauth.Provisioned{}, []schemeCase{{"nothing to give", object{}, msl.ErrEntityAuthFactoryNotFound}})
	r.checkScheme(t, empty, []schemeCase{{"an empty identity", object{}, msl.ErrInternalException}})
	r.checkScheme(t, failing, []schemeCase{{"failing", object{}, msl.ErrInternalException}})
}

func TestMGKErrors(t *testing.T) {
	r := newWide(t)
	r.directory["MODEL-gone"] = &msl.Entity{Identity: "MODEL-gone", Scheme: "MGK", Revoked: true}
	r.directory["MODEL-psk"] = &msl.Entity{Identity: "MODEL-psk", Scheme: "PSK"}
	of := func(identity string) object { return object{"identity": identity} }
	r.checkScheme(t, r.peer("MGK"), []schemeCase{
		{"no identity", object{}, msl.ErrMSLParseError},
		{"revoked", of("MODEL-gone"), msl.ErrEntityRevoked},
		{"another scheme", of("MODEL-psk"), msl.ErrIncorrectEntityAuthData},
		{"unknown group", of("ELSE-1"), msl.ErrEntityNotFound},
	})
	group := func(g entityauth.ModelGroup, err error) *entityauth.MGK {
		return &entityauth.MGK{Importer: r.store, Group: func(context.Context, string) (entityauth.ModelGroup, error) { return g, err }}
	}
	long := provision(t, r.store, "aes256", keystore.AES256CBC).(keystore.Cipher)
	one := []schemeCase{{"group that fails", of("MODEL-1"), msl.ErrInternalException}}
	r.checkScheme(t, group(entityauth.ModelGroup{}, keystore.ErrUnavailable), one)
	r.checkScheme(t, group(entityauth.ModelGroup{}, nil), one)
	r.checkScheme(t, group(entityauth.ModelGroup{Key: long}, nil), one)
	r.checkScheme(t, &entityauth.MGK{}, []schemeCase{{"no groups", of("MODEL-1"), msl.ErrEntityNotFound}})
}

// TestNamelessEntity refuses an entity whose name is empty: all of them would be one, and an
// empty name means nobody elsewhere. Devices get certificates without a subject when their
// name is only in an extension (RFC 5280 section 4.1.2.6).
func TestNamelessEntity(t *testing.T) {
	r := newRecorded(t)
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	certificate := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"device"}, IsCA: true, BasicConstraintsValid: true}
	der := must(x509.CreateCertificate(rand.Reader, certificate, certificate, key.Public(), key))
	roots := x509.NewCertPool()
	roots.AddCert(must(x509.ParseCertificate(der)))
	r.server.Peers = []msl.EntityScheme{&entityauth.X509{Roots: roots}, &entityauth.None{Anyone: true}}
	local := &entityauth.X509Entity{Certificate: must(x509.ParseCertificate(der)), Key: key}
	if _, err := local.Credentials(t.Context()); !errors.Is(err, msl.ErrUnsupportedEntityAuthData) {
		t.Errorf("own certificate: %v", err)
	}
	signing, header, chunk := msl.SigningKey{Key: key}, encode(one()), encode(hello)
	signed := encode(with(byScheme("X509", object{"x509certificate": der}), object{"headerdata": header, "signature": must(signing.Sign(header))}))
	signed = append(signed, encode(object{"payload": chunk, "signature": must(signing.Sign(chunk))})...)
	for scheme, message := range map[string][]byte{
		"X509": signed,
		"NONE": rawKeys{}.message(byScheme("NONE", object{"identity": ""}), one(), hello),
	} {
		if e := r.mustRefuse(t, message, msl.ErrIncorrectEntityAuthData, -1); e.called {
			t.Errorf("%s: the application was called", scheme)
		}
	}
}

func TestMTProtectedErrors(t *testing.T) {
	r := newWide(t)
	r.directory["gone"] = &msl.Entity{Identity: "gone", Scheme: "PSK", Revoked: true}
	token, foreign := recordedToken(nil), rawKeys{"x", issuerKeys.encryption, serviceKeys.mac}.token(masterMembers, "sessiondata", sessionData)
	psk := func(identity string) object { return object{"scheme": "PSK", "authdata": object{"identity": identity}} }
	good := sessionRaw.hidden(token, psk("client1"))
	cases := []schemeCase{
		{"no master token", with(good, object{"mastertoken": "x"}), msl.ErrMSLParseError},
		{"no data", with(good, object{"authdata": 1}), msl.ErrMSLParseError},
		{"signature that is not Base64", with(good, object{"signature": "*"}), msl.ErrMSLParseError},
		{"empty master token", with(good, object{"mastertoken": object{}}), msl.ErrEntityAuthMasterTokenInvalid},
		{"malformed master token", with(good, object{"mastertoken": recordedToken(object{"serialnumber": -1})}), msl.ErrEntityAuthMasterTokenInvalid},
		{"another issuer's master token", with(good, object{"mastertoken": foreign}), msl.ErrEntityAuthMasterTokenNotDecrypted},
		{"signature of other keys", with(good, object{"signature": serviceKeys.sign([]byte("x"))}), msl.ErrEntityAuthVerificationFailed},
		{"no signature", with(good, object{"signature": ""}), msl.ErrEntityAuthVerificationFailed},
		{"data of other keys", serviceKeys.hidden(token, psk("client1")), msl.ErrEntityAuthVerificationFailed},
		{"nothing inside", sessionRaw.hidden(token, []byte{}), msl.ErrMSLParseError},
		{"no scheme inside", sessionRaw.hidden(token, object{"authdata": object{}}), msl.ErrMSLParseError},
		{"no data inside", sessionRaw.hidden(token, object{"scheme": "PSK"}), msl.ErrMSLParseError},
		{"unknown scheme inside", sessionRaw.hidden(token, object{"scheme": "X", "authdata": object{}}), msl.ErrUnidentifiedEntityAuthScheme},
		{"unconfigured scheme inside", sessionRaw.hidden(token, object{"scheme": "RSA", "authdata": object{}}), msl.ErrEntityAuthFactoryNotFound},
		{"itself inside", sessionRaw.hidden(token, object{"scheme": "MT_PROTECTED", "authdata": good}), msl.ErrEntityAuthFactoryNotFound},
		{"malformed data inside", sessionRaw.hidden(token, object{"scheme": "PSK", "authdata": object{}}), msl.ErrMSLParseError},
		{"unknown inside", sessionRaw.hidden(token, psk("nobody")), msl.ErrEntityNotFound},
		{"revoked inside", sessionRaw.hidden(token, psk("gone")), msl.ErrEntityRevoked},
		{"another scheme inside", sessionRaw.hidden(token, psk("client5")), msl.ErrIncorrectEntityAuthData},
	}
	for range 2 { // the second time the session is remembered
		r.checkScheme(t, r.peer("MT_PROTECTED"), cases)
	}
	r.checkScheme(t, &entityauth.MTProtected{}, []schemeCase{{"nothing opens tokens", good, msl.ErrEntityAuthMasterTokenNotDecrypted}})
}

func TestMTProtectedDirectory(t *testing.T) {
	r := newWide(t)
	base := r.peer("MT_PROTECTED").(*entityauth.MTProtected)
	data := encode(sessionRaw.hidden(recordedToken(object{"renewalwindow": 1, "expiration": 1}), // it may have expired
		object{"scheme": "PSK", "authdata": object{"identity": "client1"}}))
	for _, c := range []struct {
		entity *msl.Entity
		want   msl.Code
	}{
		{nil, -1},
		{&msl.Entity{Scheme: "MT_PROTECTED"}, -1},
		{&msl.Entity{Scheme: "PSK"}, -1},
		{&msl.Entity{Scheme: "RSA"}, msl.ErrIncorrectEntityAuthData},
		{&msl.Entity{Scheme: "PSK", Revoked: true}, msl.ErrEntityRevoked},
	} {
		d := directory{}
		if c.entity != nil {
			d["client1"] = c.entity
		}
		scheme := &entityauth.MTProtected{Tokens: base.Tokens, Inner: base.Inner, Directory: d}
		_, release, err := scheme.Open(context.Background(), data)
		if c.want < 0 && err != nil || c.want >= 0 && !errors.Is(err, c.want) {
			t.Errorf("%+v: %v, want %v", c.entity, err, c.want)
		}
		if err == nil {
			release()
		}
	}
}
