package msl_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

// Schemes that open master tokens pass on errors that are not verdicts on the token.
func TestTokenSchemesPassFailuresOn(t *testing.T) {
	ctx := context.Background()
	b := newFaultBench(t)
	psk := b.pskEntity("device")
	b.client = b.network.client(psk, &keyx.SymmetricOfferer{Keys: psk.Keys})
	if _, _, err := send(t, b.client, &msl.Request{Encrypted: true, RequestTokens: true, User: "user@example.com", Body: msl.BytesBody(b.body)}); err != nil {
		t.Fatal(err)
	}
	held := must(b.client.HeldTokens(ctx, "user@example.com"))
	defer held.Keys.Release()
	local := must((&entityauth.MTProtectedEntity{Hidden: psk, Token: held.MasterToken, Keys: held.Keys}).Credentials(ctx))
	hidden := &entityauth.MTProtected{Inner: b.server.Peers, Tokens: func(t *msl.MasterToken) (*msl.Session, error) { return b.server.OpenMasterToken(t) }}
	user := &userauth.UserIDToken{Issuer: b.server.Issuer}
	proof := userauth.UserIDTokenData(held.MasterToken.Bytes(), held.UserIDToken.Bytes())
	for what, do := range map[string]func() error{
		"MT_PROTECTED": func() error {
			_, release, err := hidden.Open(ctx, local.AuthData)
			if err == nil {
				release()
			}
			return err
		},
		"USER_ID_TOKEN": func() error {
			_, err := user.Authenticate(ctx, "device", proof.AuthData)
			return err
		},
	} {
		b.restart()
		b.store.watch(nil)
		if err := do(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for at, op := range b.store.operations() {
			for _, failure := range ours {
				b.restart()
				b.store.watch(func(n int, _ string) error {
					if n == at {
						return fmt.Errorf("fault: %w", failure)
					}
					return nil
				})
				if err, e := do(), (*msl.Error)(nil); !errors.As(err, &e) || e.Code != msl.ErrInternalException {
					t.Errorf("%s, %s, %v: %v", what, op, failure, err)
				}
			}
		}
	}
}

// Failure and KeyFailure distinguish a failure of this side from one of the peer.
func TestFailureCodes(t *testing.T) {
	const code = msl.ErrUnwrapError
	for _, c := range []struct {
		err            error
		other, withKey msl.Code
	}{
		{keystore.ErrUnavailable, msl.ErrInternalException, msl.ErrInternalException},
		{keystore.ErrBusy, msl.ErrInternalException, msl.ErrInternalException},
		{keystore.ErrClosed, msl.ErrInternalException, msl.ErrInternalException},
		{keystore.ErrLost, msl.ErrInternalException, msl.ErrInternalException},
		{keystore.ErrPIN, msl.ErrInternalException, msl.ErrInternalException},
		{keystore.ErrWeakKey, msl.ErrInternalException, msl.ErrInternalException},
		{keystore.ErrWrongKey, msl.ErrInternalException, msl.ErrInternalException},
		{keystore.ErrLocked, msl.ErrInternalException, msl.ErrInternalException},
		{msl.Failure(msl.ErrInternalException, "before", nil), msl.ErrInternalException, msl.ErrInternalException},
		{keystore.ErrNotFound, code, msl.ErrInternalException}, // of an entity, or of a key
		{keystore.ErrForeign, code, msl.ErrInternalException},
		{keystore.ErrBadData, code, code},
		{msl.ErrMasterTokenUntrusted, code, msl.ErrInternalException},
		{errors.Join(keystore.ErrBadData, keystore.ErrUnavailable), msl.ErrInternalException, msl.ErrInternalException},
	} {
		err := fmt.Errorf("x: %w", c.err)
		for got, want := range map[error]msl.Code{
			msl.Failure(code, "test", err):                         c.other,
			msl.KeyFailure(code, "test", err, keystore.ErrBadData): c.withKey,
		} {
			if e := got.(*msl.Error); e.Code != want || !errors.Is(got, c.err) {
				t.Errorf("%v: %v, want %v", c.err, got, want)
			}
		}
	}
}
