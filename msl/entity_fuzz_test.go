package msl_test

import (
	"context"
	"encoding/json"
	"slices"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

// FuzzEntityAuthData shows authdata to every scheme. What MT_PROTECTED hides is
// fuzzed apart, since a fuzzer cannot sign it.
func FuzzEntityAuthData(f *testing.F) {
	var v struct{ Cases []struct{ Encoding encoding } }
	readVectors(f, "spec/entityauthdata.json", &v)
	for _, c := range v.Cases {
		var data schemed
		if err := json.Unmarshal(c.Encoding.Bytes, &data); err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(data.AuthData), false)
		f.Add(c.Encoding.Bytes, true)
	}
	r := newWide(f)
	token := recordedToken(nil)
	f.Fuzz(func(t *testing.T, authdata []byte, hidden bool) {
		schemes := r.server.Peers
		if hidden {
			authdata = encode(sessionRaw.hidden(token, authdata))
			schemes = []msl.EntityScheme{r.peer("MT_PROTECTED")}
		}
		for _, s := range schemes {
			sender, release, err := s.Open(context.Background(), authdata)
			hasCode(t, err)
			if err == nil {
				if sender.Opener == nil || sender.Encrypted != encrypts(s) || sender.Authenticated != authenticates(s) {
					t.Errorf("%s: %+v", s.Scheme(), sender)
				}
				release()
			}
		}
	})
}

func FuzzUserIDTokenData(f *testing.F) {
	var v struct{ Cases []struct{ Encoding encoding } }
	readVectors(f, "spec/userauthdata.json", &v)
	for _, c := range v.Cases {
		var data schemed
		if err := json.Unmarshal(c.Encoding.Bytes, &data); err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(data.AuthData))
	}
	f.Add(userauth.UserIDTokenData(encode(recordedToken(nil)), encode(recordedUser(nil))).AuthData)
	scheme := &userauth.UserIDToken{Issuer: newRecorded(f).server.Issuer}
	f.Fuzz(func(t *testing.T, authdata []byte) {
		err := scheme.Check(authdata)
		hasCode(t, err)
		user, again := scheme.Authenticate(context.Background(), "client1", authdata)
		hasCode(t, again)
		if err != nil && again == nil {
			t.Errorf("%s names %q", authdata, user)
		}
	})
}

// encrypts and authenticates are what the protocol says about the messages of a scheme.
func encrypts(s msl.EntityScheme) bool {
	return slices.Contains([]string{"PSK", "PSK_PROFILE", "MGK"}, s.Scheme())
}

func authenticates(s msl.EntityScheme) bool {
	return encrypts(s) || slices.Contains([]string{"RSA", "ECC", "X509"}, s.Scheme())
}
