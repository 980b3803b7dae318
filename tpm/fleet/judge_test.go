package fleet

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// TestCountSince judges tokens from before and after a name was given.
func TestCountSince(t *testing.T) {
	since := time.Unix(1_800_000_000, 700_000_000)
	token := func(issued time.Time, renewal, life time.Duration) *msl.MasterToken {
		return &msl.MasterToken{RenewalWindow: issued.Add(renewal).Truncate(time.Second), Expiration: issued.Add(life).Truncate(time.Second)}
	}
	records := enroll.StoredIn(&kvtest.Memory{})
	a, err := NewAuthority(newDesk(t).state, enroll.Config{Records: records})
	if err != nil {
		t.Fatal(err)
	}
	revoked := enroll.Certificate{Name: "van", Serial: "1", Revoked: &enroll.Revocation{Time: since.Add(-time.Second), Reason: 1}}
	for id, r := range []enroll.Record{
		{Name: "box", Registered: "box", Since: since},
		{Name: "other", Registered: "box", Since: since.Add(-time.Hour)}, // it gave the name away
		{Name: "van", Registered: "van", Certificates: []enroll.Certificate{revoked}},
	} {
		r.ID, r.State = enroll.ID{byte(id)}, enroll.Enrolled
		if err := records.Update(t.Context(), func(tx enroll.Tx) error { return tx.Put(r) }); err != nil {
			t.Fatal(err)
		}
	}
	judge := judged(a, &msl.Issuer{})
	short := judged(a, &msl.Issuer{RenewAfter: time.Minute, Lifetime: 12 * time.Hour})
	for what, c := range map[string]struct {
		judge    func(context.Context, string, *msl.MasterToken) error
		identity string
		token    *msl.MasterToken
		want     error
	}{
		"after":                       {judge, "box", token(since.Add(time.Second), time.Hour, 24*time.Hour), nil},
		"at once":                     {judge, "box", token(since, time.Hour, 24*time.Hour), nil},
		"before":                      {judge, "box", token(since.Add(-time.Second), time.Hour, 24*time.Hour), msl.ErrMasterTokenIdentityRevoked},
		"before, by a certificate":    {judge, "CN=box", token(since.Add(-time.Second), time.Hour, 24*time.Hour), msl.ErrMasterTokenIdentityRevoked},
		"before, by shared keys":      {judge, "box-psk", token(since.Add(-time.Second), time.Hour, 24*time.Hour), msl.ErrMasterTokenIdentityRevoked},
		"another name":                {judge, "van", token(since.Add(-time.Second), time.Hour, 24*time.Hour), nil},
		"a certificate":               {judge, "CN=van", token(since.Add(-time.Second), time.Hour, 24*time.Hour), msl.ErrMasterTokenIdentityRevoked},
		"lived longer in those days":  {short, "box", token(since.Add(-time.Second), time.Minute, 24*time.Hour), msl.ErrMasterTokenIdentityRevoked},
		"renewed later in those days": {short, "box", token(since.Add(-time.Second), time.Hour, 12*time.Hour), msl.ErrMasterTokenIdentityRevoked},
	} {
		if err := c.judge(t.Context(), c.identity, c.token); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// judged returns a function that judges a token as a server with that issuer does.
func judged(a *Authority, issuer *msl.Issuer) func(context.Context, string, *msl.MasterToken) error {
	return func(ctx context.Context, identity string, t *msl.MasterToken) error {
		since, err := a.CountSince(ctx, identity)
		if err == nil && issuer.Issued(t).Before(since) {
			err = msl.ErrMasterTokenIdentityRevoked
		}
		return err
	}
}
