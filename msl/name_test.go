package msl_test

import (
	"context"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

const (
	composed   = "caf\u00e9"
	decomposed = "cafe\u0301"
)

func TestCanonicalName(t *testing.T) {
	for name, want := range map[string]string{
		"": "", "camera-1": "camera-1", composed: composed, decomposed: composed,
		"\u212b": "\u00c5", "s\u0307\u0323": "\u1e69", "\ufb01": "\ufb01", "\xff": "\xff",
	} {
		if got := msl.CanonicalName(name); got != want || msl.CanonicalName(got) != got {
			t.Errorf("%+q: %+q, want %+q", name, got, want)
		}
	}
}

// TestSpellings has a device that writes its name, its user's and the server's in another
// spelling than the other side: they are one, and what travels is as it was written.
func TestSpellings(t *testing.T) {
	skipWithRace(t)
	for _, registered := range []string{composed, decomposed} {
		for _, own := range []string{composed, decomposed} {
			n := softNetwork(t)
			n.server.Name = registered
			n.server.Local.(*entityauth.ECCEntity).Identity = registered
			n.server.Users = []msl.UserScheme{&userauth.EmailPassword{Verify: func(_ context.Context, email string, _ []byte) (string, error) { return registered, nil }}}
			asked, logins := "", 0
			n.server.PermitUser = func(_ context.Context, identity, user, _ string) (bool, error) {
				asked = identity + user
				return true, nil
			}
			judged := ""
			n.server.CountSince = func(_ context.Context, identity string) (time.Time, error) {
				judged = identity
				return time.Time{}, nil
			}
			var m *msl.Message
			n.handler = func(ctx context.Context, w *msl.ResponseWriter, got *msl.Message) error {
				m = got
				return echo(ctx, w, got)
			}
			c := n.rsaClient(registered)
			local := c.Local.(*entityauth.RSAEntity)
			local.Identity = own
			static := msl.StaticDirectory(n.directory)
			n.server.Directory, n.server.Peers[1] = static, &entityauth.RSA{Directory: static}
			c.Peers = []msl.EntityScheme{&entityauth.ECC{Directory: msl.StaticDirectory{"caf\u00e9": {Identity: composed, Scheme: "ECC", KeyID: "server-key", PublicKey: n.serverKey}}}}
			c.UserAuth = func(_ context.Context, user string, _ msl.ResponseCode) (*msl.UserAuthData, error) {
				logins++
				return userauth.EmailPasswordData(user, []byte("x")), nil
			}
			for _, user := range []string{own, composed, decomposed} {
				r := forUser(user)
				r.Recipient = own
				r.NonReplayable = user == decomposed
				if _, data, err := send(t, c, r); err != nil || data != "hello" {
					t.Fatalf("%+q as %+q: %q, %v", registered, own, data, err)
				}
				if m.Identity != composed || m.User != composed || asked != composed+composed {
					t.Errorf("%+q as %+q: the application sees %+q and %+q, the policy %+q", registered, own, m.Identity, m.User, asked)
				}
			}
			if judged != composed {
				t.Errorf("%+q as %+q: its token is judged as that of %+q", registered, own, judged)
			}
			held := c.Held()
			again := userauth.UserIDToken{Issuer: n.server.Issuer, Permitted: func(_ context.Context, identity, user string) (bool, error) {
				return identity+user == composed+composed, nil
			}}
			if _, err := again.Authenticate(t.Context(), own, userauth.UserIDTokenData(held.MasterToken.Bytes(), held.UserIDTokens[composed].Bytes()).AuthData); err != nil {
				t.Errorf("%+q as %+q: %v", registered, own, err)
			}
			session, err := n.server.OpenMasterToken(c.Held().MasterToken)
			if err != nil || session.Identity != own || logins != 1 {
				t.Errorf("the token is of %+q, %d log-ins: %v", session.Identity, logins, err)
			}
			session.Release()
			n.state.Revoke(registered)
			if _, _, err := send(t, c, forUser(own)); err == nil {
				t.Errorf("%+q goes on, and %+q is revoked", own, registered)
			}
		}
	}
}
