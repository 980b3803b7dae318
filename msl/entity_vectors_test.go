package msl_test

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// groupKey is the master key of the model group of the tests.
var groupKey = unhex("00112233445566778899aabbccddeeff")

// addSchemes gives a recorded server every other entity scheme. What is one
// entity under several schemes in the recordings has a directory for each.
func (r *recorded) addSchemes() {
	r.t.Helper()
	r.directory["client4"] = &msl.Entity{Identity: "client4", Scheme: "NONE_SUFFIXED"}
	r.directory["client8"] = &msl.Entity{Identity: "client8", Scheme: "ECC", KeyID: "eccclient8", PublicKey: publicKey(r.t, "client8_ec_p256")}
	psk := r.server.Peers[0].(*entityauth.PSK)
	profiles := directory{"client1": {Identity: "client1", Scheme: "PSK_PROFILE", PSK: r.directory["client1"].PSK}}
	peers := &entityauth.PSK{Directory: profiles, Store: r.store}
	r.t.Cleanup(func() { peers.Close() })
	group := provisionRaw(r.t, r.store, "group", keystore.AES128CBC, groupKey).(keystore.Cipher)
	mgk := &entityauth.MGK{Directory: r.directory, Importer: r.store, Group: func(_ context.Context, identity string) (entityauth.ModelGroup, error) {
		if !strings.HasPrefix(identity, "MODEL-") {
			return entityauth.ModelGroup{}, keystore.ErrNotFound
		}
		return entityauth.ModelGroup{Name: "MODEL-", Key: group}, nil
	}}
	r.t.Cleanup(func() { mgk.Close() })
	var provisioned atomic.Int64
	r.server.Peers = append(r.server.Peers,
		&entityauth.PSKProfile{KeySets: peers},
		&entityauth.ECC{Directory: r.directory},
		&entityauth.NoneSuffixed{Directory: r.directory},
		&entityauth.Provisioned{Assign: func(context.Context) (string, error) {
			return fmt.Sprintf("provisioned%d", provisioned.Add(1)), nil
		}},
		mgk,
		&entityauth.MTProtected{Tokens: r.server.OpenMasterToken,
			Inner: []msl.EntityScheme{psk, &entityauth.None{Directory: directory{"client1": {Identity: "client1", Scheme: "NONE"}}}}})
}

func newWide(t testing.TB) *recorded {
	r := newRecorded(t)
	r.addSchemes()
	return r
}

func (r *recorded) peer(scheme string) msl.EntityScheme {
	for _, s := range r.server.Peers {
		if s.Scheme() == scheme {
			return s
		}
	}
	r.t.Fatal("no scheme " + scheme)
	return nil
}

// hidden is the authdata of MT_PROTECTED under a token whose keys are k.
func (k rawKeys) hidden(token object, inner any) object {
	o := k.signed("authdata", k.encrypt(encode(inner)))
	o["mastertoken"] = token
	return o
}

func recordedToken(changes object) object {
	return issuerKeys.token(with(masterMembers, changes), "sessiondata", sessionData)
}

// localWide are the local sides of the other schemes.
func localWide(t testing.TB) map[string]msl.LocalEntity {
	store := newStore(t)
	k := symmetric(t, store, pskClient1)
	keys := entityauth.NewKeySet(k.Encryption, k.MAC, nil)
	session := symmetric(t, store, sessionRaw)
	token, err := msl.ParseMasterToken(encode(recordedToken(nil)))
	if err != nil {
		t.Fatal(err)
	}
	hide := func(own msl.LocalEntity) msl.LocalEntity {
		return &entityauth.MTProtectedEntity{Hidden: own, Token: token, Keys: msl.NewSessionKeys(session.Encryption, session.MAC)}
	}
	return map[string]msl.LocalEntity{
		"PSK_PROFILE":        &entityauth.PSKProfileEntity{KeyID: "client1", Profile: "profile1", Keys: keys},
		"ECC":                &entityauth.ECCEntity{Identity: "client8", KeyID: "eccclient8", Key: provisionPair(t, store, "ecc", keystore.ECDSAP256, keyPair(t, "client8_ec_p256")).(crypto.Signer)},
		"NONE_SUFFIXED":      &entityauth.NoneSuffixedEntity{Root: "client4", Suffix: "1"},
		"PROVISIONED":        &entityauth.ProvisionedEntity{},
		"MT_PROTECTED(PSK)":  hide(&entityauth.PSKEntity{Identity: "client1", Keys: keys}),
		"MT_PROTECTED(NONE)": hide(&entityauth.NoneEntity{Identity: "client1"}),
	}
}

func TestVectorsOtherEntitySchemes(t *testing.T) {
	var v struct {
		Cases []struct {
			Scheme, Variant, Identity   string
			Encrypts, ProtectsIntegrity bool
			Encoding                    encoding
		}
	}
	readVectors(t, "spec/entityauthdata.json", &v)
	local, seen := localWide(t), 0
	for _, c := range v.Cases {
		us := local[c.Variant]
		if us == nil {
			continue
		}
		seen++
		r := newWide(t)
		peer := r.peer(c.Scheme)
		if us.Scheme() != c.Scheme || us.Encrypts() != c.Encrypts || us.Authenticates() != c.ProtectsIntegrity {
			t.Errorf("%s: another scheme or protection", c.Variant)
		}
		var data schemed
		if err := json.Unmarshal(c.Encoding.Bytes, &data); err != nil {
			t.Fatal(err)
		}
		own, err := us.Credentials(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if own.Identity != c.Identity {
			t.Errorf("%s: we are %q", c.Variant, own.Identity)
		}
		if c.Scheme != "MT_PROTECTED" { // whose ciphertext is another one each time
			sameObject(t, own.AuthData, data.AuthData)
		}
		for i, authdata := range [][]byte{data.AuthData, own.AuthData} {
			identity := c.Identity
			if c.Scheme == "PROVISIONED" {
				identity = fmt.Sprintf("provisioned%d", i+1)
			}
			checkSender(t, peer, own, authdata, identity)
		}
	}
	if seen != len(local) {
		t.Errorf("%d schemes", seen)
	}
}

func TestVectorsOtherEntityMessages(t *testing.T) {
	for _, file := range []string{"messages", "messages_p2p"} {
		var v struct{ Cases []messageCase }
		readVectors(t, "spec/"+file+".json", &v)
		read := 0
		for _, c := range v.Cases {
			name, ok := strings.CutPrefix(c.Name, "entityauth ")
			if !ok {
				continue
			}
			t.Run(file+" "+name, func(t *testing.T) {
				got, err := newWide(t).server.Receive(context.Background(), bytes.NewReader(c.Message.Bytes))
				if err != nil {
					t.Fatal(err)
				}
				c.Parsed.OK.check(t, got)
				read++
			})
		}
		if want := map[string]int{"messages": 10, "messages_p2p": 5}[file]; read != want {
			t.Errorf("%d messages of %s", read, file)
		}
	}
}

// The root of NONE_SUFFIXED that was recorded is registered for another scheme.
func TestConversationSchemeNotPermitted(t *testing.T) {
	request := readFile(t, "conversations/err-scheme-not-permitted.req.1")
	newWide(t).mustRefuse(t, request, msl.ErrIncorrectEntityAuthData, -1)
}

// User authentication data needs an encrypted header, and MT_PROTECTED does not
// count as one whatever it hides.
func TestMTProtectedUserAuthentication(t *testing.T) {
	r := newWide(t)
	who := object{"scheme": "MT_PROTECTED", "authdata": sessionRaw.hidden(recordedToken(nil), object{"scheme": "PSK", "authdata": object{"identity": "client1"}})}
	user := object{"userauthdata": object{"scheme": "EMAIL_PASSWORD", "authdata": object{"email": "user1@foo.com", "password": "user1pwd"}}}
	message := pskClient1.message(object{"entityauthdata": who}, one(user), hello)
	r.mustRefuse(t, message, msl.ErrUnencryptedMessageWithUserAuthData, 1)
	got, err := r.server.Receive(context.Background(), bytes.NewReader(pskClient1.message(object{"entityauthdata": who}, one(), hello)))
	if err != nil || got.Identity != "client1" || string(got.Payload) != "hello" {
		t.Errorf("%+v, %v", got, err)
	}
}

// A scheme that cannot make credentials returns an error.
func TestLocalErrors(t *testing.T) {
	closed := localWide(t)["MT_PROTECTED(PSK)"].(*entityauth.MTProtectedEntity)
	closed.Keys.Release()
	p256 := provision(t, newStore(t), "rsa", keystore.RSASign2048).(crypto.Signer)
	for _, c := range []struct {
		entity msl.LocalEntity
		want   msl.Code
	}{
		{&entityauth.PSKProfileEntity{}, msl.ErrEntityNotFound},
		{&entityauth.MGKEntity{}, msl.ErrEntityNotFound},
		{&entityauth.ECCEntity{}, msl.ErrECCPrivateKeyNotFound},
		{&entityauth.ECCEntity{Key: p256}, msl.ErrECCPrivateKeyNotFound},
		{&entityauth.MTProtectedEntity{}, msl.ErrEntityAuthMasterTokenNotDecrypted},
		{closed, msl.ErrEntityAuthMasterTokenNotDecrypted},
		{&entityauth.MTProtectedEntity{Hidden: &entityauth.RSAEntity{}, Token: closed.Token, Keys: closed.Keys}, msl.ErrRSAPrivateKeyNotFound},
	} {
		if _, err := c.entity.Credentials(context.Background()); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.entity.Scheme(), err, c.want)
		}
	}
}
