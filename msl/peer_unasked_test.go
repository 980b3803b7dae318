package msl_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// refusalOf is an error message with that id from client1.
func refusalOf(id int64) []byte {
	inside := encode(object{"messageid": id, "errorcode": 1, "internalcode": msl.ErrEntityRevoked.Internal()})
	return encode(with(pskClient1.signed("errordata", pskClient1.encrypt(inside)), byPSK("client1")))
}

// TestPeerErrorUnasked has a peer send an error that answers nothing: it is told, and not answered,
// and the next message is.
func TestPeerErrorUnasked(t *testing.T) {
	conn, wire := newRecorded(t).peerTo(t, append(refusalOf(7), fromToken()...))
	handle := func(_ context.Context, w *msl.ResponseWriter, _ *msl.Message) error {
		w.Encrypted, w.Authenticated = false, false
		return nil
	}
	var refusal *msl.PeerError
	if err := conn.Serve(t.Context(), handle); !errors.As(err, &refusal) || refusal.Code != msl.ErrEntityRevoked || refusal.MessageID != 7 || refusal.Identity != "client1" {
		t.Errorf("%v, %+v", err, refusal)
	}
	if wire.Len() != 0 {
		t.Errorf("it is answered: %s", wire.Bytes())
	}
	if err := conn.Serve(t.Context(), handle); err != nil || wire.Len() == 0 {
		t.Errorf("the next message: %v, %d bytes in answer", err, wire.Len())
	}
}

// TestPeerGoneBeforeItsAnswer has the connection end before a request is answered.
func TestPeerGoneBeforeItsAnswer(t *testing.T) {
	reset := errors.New("connection reset")
	for _, c := range []struct {
		ends  io.Reader
		want  msl.Code
		cause error
	}{
		{bytes.NewReader(nil), msl.ErrMSLParseError, io.EOF},
		{bytes.NewReader([]byte(`{"entityauth`)), msl.ErrMSLParseError, msl.ErrTruncated},
		{iotest.ErrReader(reset), msl.ErrMSLCommsFailure, reset},
	} {
		conn, _ := newRecorded(t).peerTo(t, nil)
		conn = msl.NewConn(&fixedConn{Reader: c.ends}, conn.Server, conn.Client)
		if _, err := conn.Request(t.Context(), &msl.Request{}); !errors.Is(err, c.want) || !errors.Is(err, c.cause) {
			t.Errorf("%v, want %v and %v", err, c.want, c.cause)
		}
	}
}

// A timedOfferer keeps the time for which key requests were made.
type timedOfferer struct {
	msl.Offerer
	at time.Time
}

func (o *timedOfferer) Offer(ctx context.Context, from msl.Requester) (msl.Offer, error) {
	o.at = from.Time
	return o.Offerer.Offer(ctx, from)
}

// TestPeerClock has a peer tell its time with a request, for the tokens that it issues.
func TestPeerClock(t *testing.T) {
	r := newRecorded(t)
	told := r.clock().Truncate(time.Second).Add(1000 * time.Second)
	conn, wire := r.peerTo(t, fromToken(object{"timestamp": told.Unix()}))
	offerer := &timedOfferer{Offerer: conn.Client.KeyExchanges[0]}
	conn.Client.KeyExchanges[0] = offerer
	err := conn.Serve(t.Context(), func(context.Context, *msl.ResponseWriter, *msl.Message) error { return msl.ErrNoReply })
	if err != nil || wire.Len() > 0 {
		t.Fatalf("%v, %s", err, wire.Bytes())
	}
	conn.Request(t.Context(), &msl.Request{Encrypted: true, Authenticated: true})
	if off := offerer.at.Sub(told); off < 0 || off > time.Second {
		t.Errorf("keys are asked for at %v, while the peer's clock shows %v", offerer.at, told)
	}
}

// TestPeerCannotIssue has a peer ask for keys that this side cannot give, and the application name a
// user for a peer without a master token: the answer is an error, whatever was written.
func TestPeerCannotIssue(t *testing.T) {
	session := requests(keyRequest("SYMMETRIC_WRAPPED", object{"keyid": "SESSION"}))
	for name, c := range map[string]struct {
		message []byte
		user    string
		want    msl.Code
	}{
		"keys":                {fromPSK(session), "", msl.ErrKeyXMasterTokenMissing},
		"keys in a handshake": {pskClient1.message(byPSK("client1"), one(session, object{"handshake": true})), "", msl.ErrKeyXMasterTokenMissing},
		"user":                {fromPSK(), "user1@foo.com", msl.ErrResponseRequiresMasterToken},
	} {
		r := newRecorded(t)
		conn, wire := r.peerTo(t, c.message)
		err := conn.Serve(t.Context(), func(_ context.Context, w *msl.ResponseWriter, _ *msl.Message) error {
			w.Encrypted, w.Authenticated = false, false
			w.SetUser(c.user)
			_, err := io.WriteString(w, "answer")
			return err
		})
		got := r.refusal(t, exchanged{served: err, wire: wire.Bytes()})
		if got.InternalCode != c.want.Internal() || *got.MessageID != 2 {
			t.Errorf("%s: %+v, want %v", name, got, c.want)
		}
	}
}
