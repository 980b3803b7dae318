package msl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A rejection by the application becomes the code for the tokens in use.
func TestApplicationRejections(t *testing.T) {
	withUser := fromToken(object{"useridtoken": userToken(nil)})
	for _, c := range []struct {
		name    string
		message []byte
		err     error
		want    msl.Code
	}{
		{"entity with a token", fromToken(), msl.ErrRejectEntity, msl.ErrMasterTokenRejectedByApp},
		{"entity", fromPSK(), fmt.Errorf("barred: %w", msl.ErrRejectEntity), msl.ErrEntityRejectedByApp},
		{"user with a token", withUser, msl.ErrRejectUser, msl.ErrUserIDTokenRejectedByApp},
		{"user", fromPSK(object{"userauthdata": password}), msl.ErrRejectUser, msl.ErrUserRejectedByApp},
		{"a code of its own", fromToken(), msl.ErrUserAuthVerificationFailed, msl.ErrUserAuthVerificationFailed},
		{"any other error", fromToken(), errors.New("secret of the database"), msl.ErrInternalException},
		{"a device that is down", fromToken(), fmt.Errorf("x: %w", keystore.ErrUnavailable), msl.ErrInternalException},
	} {
		r := newRecorded(t)
		var out bytes.Buffer
		err := r.server.Serve(context.Background(), "test", bytes.NewReader(c.message), &out,
			func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
				w.Write([]byte("not to be sent"))
				return c.err
			})
		got := r.refusal(t, exchanged{served: err, wire: out.Bytes()})
		if got.InternalCode != 100000+int(c.want) || got.ErrorCode != int(c.want.Response()) || *got.MessageID != 2 {
			t.Errorf("%s: %+v, want %v", c.name, got, c.want)
		}
		if got.ErrorMsg != c.want.Text() {
			t.Errorf("%s: tells %q", c.name, got.ErrorMsg)
		}
	}
}

// A message that is refused before its id is judged must not use up the id.
func TestRefusedMessageCountsNothing(t *testing.T) {
	id := object{"nonreplayableid": 9}
	r := newRecorded(t)
	valid := fromToken(id)
	r.mustRefuse(t, pskClient1.message(byToken(nil), one(id), hello), msl.ErrMessageMasterTokenBasedVerificationFailed, -1)
	r.mustRefuse(t, fromToken(id, requests(keyRequest("X", object{}))), msl.ErrUnidentifiedKeyXScheme, 1)
	r.mustRefuse(t, fromToken(id, object{"handshake": true}), msl.ErrHandshakeDataMissing, 1)
	r.mustRefuse(t, sessionRaw.message(byToken(expired), one(id), hello), msl.ErrMessageExpiredNotRenewable, 1)
	if e := r.serve(valid); e.served != nil || !e.called {
		t.Errorf("%v", e.served)
	}
	r.mustRefuse(t, valid, msl.ErrMessageReplayed, 1)
}

// An id is of one token: another serial number counts for itself.
func TestReplayIsPerToken(t *testing.T) {
	r := newRecorded(t)
	for serial := range 3 {
		message := sessionRaw.message(byToken(object{"serialnumber": 7 + serial}), one(object{"nonreplayableid": 3}), hello)
		if e := r.serve(message); e.served != nil || !e.called {
			t.Errorf("serial number %d: %v", serial, e.served)
		}
		r.mustRefuse(t, message, msl.ErrMessageReplayed, 1)
	}
}

// A cached token is judged again each time: by the clock and by revocations.
func TestRememberedTokenIsJudged(t *testing.T) {
	r := newRecorded(t)
	message := fromToken(object{"useridtoken": userToken(nil)})
	for range 2 {
		if e := r.serve(message); e.served != nil || !e.called || e.message.User != "user1@foo.com" {
			t.Fatalf("%+v", e)
		}
	}
	r.state.revoked["user1@foo.com"] = msl.ErrUserIDTokenRevoked
	r.mustRefuse(t, message, msl.ErrUserIDTokenRevoked, 1)
	r.state.revoked["client1"] = msl.ErrMasterTokenIdentityRevoked
	r.mustRefuse(t, message, msl.ErrMasterTokenIdentityRevoked, 1)
	clear(r.state.revoked)
	changed := bytes.Replace(message, []byte(`"headerdata":"`), []byte(`"headerdata":"A`), 1)
	r.mustRefuse(t, changed, msl.ErrMSLParseError, -1)
	r.setClock(r.clock().Add(2 * 3600e9))
	r.mustRefuse(t, message, msl.ErrMessageExpiredNotRenewable, 1)
	r.checkUnharmed(t)
}
