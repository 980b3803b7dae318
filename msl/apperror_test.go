package msl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

func refusing(err error) msl.Handler {
	return func(context.Context, *msl.ResponseWriter, *msl.Message) error { return err }
}

// peerError sends a request that is refused.
func peerError(t *testing.T, c *msl.Client, req *msl.Request) *msl.PeerError {
	t.Helper()
	_, _, err := send(t, c, req)
	var refused *msl.PeerError
	if !errors.As(err, &refused) {
		t.Fatalf("%v, want an error of the peer", err)
	}
	return refused
}

// plainly is a request that names no user.
func plainly() *msl.Request {
	return &msl.Request{Encrypted: true, Authenticated: true, RequestTokens: true, Recipient: "server", Body: msl.BytesBody([]byte("x"))}
}

// TestAppError sends errors of the application to a client.
func TestAppError(t *testing.T) {
	skipWithRace(t)
	long := strings.Repeat("é", 3000)
	for name, c := range map[string]struct {
		err  error
		want msl.PeerError
	}{
		"all of it": {
			&msl.AppError{Response: msl.TransientFailure, InternalCode: 250017, Message: "no such film", User: "Diesen Film gibt es nicht.", Err: errors.New("row 17")},
			msl.PeerError{Response: msl.TransientFailure, Code: 150017, InternalCode: 250017, Message: "no such film", User: "Diesen Film gibt es nicht."},
		},
		"nothing":             {&msl.AppError{}, msl.PeerError{Response: msl.Fail, Code: -1, InternalCode: -1}},
		"wrapped":             {fmt.Errorf("film: %w", &msl.AppError{InternalCode: 7}), msl.PeerError{Response: msl.Fail, Code: -1, InternalCode: 7}},
		"the largest":         {&msl.AppError{InternalCode: math.MaxInt32}, msl.PeerError{Response: msl.Fail, Code: math.MaxInt32 - 100000, InternalCode: math.MaxInt32}},
		"too large":           {&msl.AppError{InternalCode: math.MaxInt32 + 1}, msl.PeerError{Response: msl.Fail, Code: -1, InternalCode: -1}},
		"negative":            {&msl.AppError{InternalCode: -7}, msl.PeerError{Response: msl.Fail, Code: -1, InternalCode: -1}},
		"99999 is no code":    {&msl.AppError{InternalCode: 99999}, msl.PeerError{Response: msl.Fail, Code: -1, InternalCode: 99999}},
		"no such response":    {&msl.AppError{Response: 11}, msl.PeerError{Response: msl.Fail, Code: -1, InternalCode: -1}},
		"one of MSL's":        {&msl.AppError{InternalCode: int64(msl.ErrEntityRevoked.Internal())}, msl.PeerError{Response: msl.Fail, Code: msl.ErrEntityRevoked, InternalCode: 104025}},
		"of a device":         {&msl.AppError{Message: "sold out", Err: keystore.ErrUnavailable}, msl.PeerError{Response: msl.Fail, Code: -1, InternalCode: -1, Message: "sold out"}},
		"over a code":         {&msl.AppError{Message: "no", Err: msl.ErrUserIDTokenRevoked}, msl.PeerError{Response: msl.Fail, Code: -1, InternalCode: -1, Message: "no"}},
		"over a rejection":    {&msl.AppError{Message: "no", Err: msl.ErrRejectUser}, msl.PeerError{Response: msl.Fail, Code: -1, InternalCode: -1, Message: "no"}},
		"texts that are long": {&msl.AppError{Message: long, User: "x" + long}, msl.PeerError{Response: msl.Fail, Code: -1, InternalCode: -1, Message: long[:4096], User: "x" + long[:4094]}},
		"texts not in UTF-8":  {&msl.AppError{Message: "a\xffb"}, msl.PeerError{Response: msl.Fail, Code: -1, InternalCode: -1, Message: "a\ufffdb"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := softNetwork(t)
			client := n.pskClient("device")
			n.handler = refusing(c.err)
			got := *peerError(t, client, plainly())
			c.want.Identity, c.want.MessageID = "server", got.MessageID
			if got != c.want {
				t.Errorf("got  %#v\nwant %#v", got, c.want)
			}
		})
	}
}

// TestAppErrorPeer is TestAppError between peers.
func TestAppErrorPeer(t *testing.T) {
	one, two := newSides(t, "PSK", "PSK")
	first, second := connect(t, one, two)
	done := serveAll(second, refusing(&msl.AppError{Response: msl.TransientFailure, InternalCode: 300001, User: "später"}), 1)
	_, err := first.Request(t.Context(), secret2("x"))
	var refused *msl.PeerError
	if !errors.As(err, &refused) || refused.Response != msl.TransientFailure || refused.InternalCode != 300001 || refused.User != "später" {
		t.Errorf("%#v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestAppErrorLog has the cause in the log of the server alone.
func TestAppErrorLog(t *testing.T) {
	n := softNetwork(t)
	client := n.pskClient("device")
	var log bytes.Buffer
	n.server.Log = slog.New(slog.NewTextHandler(&log, nil))
	n.handler = refusing(&msl.AppError{Response: msl.UserReauth, InternalCode: 250017, Message: "for the peer", User: "for the user", Err: errors.New("row 17")})
	err := peerError(t, client, plainly())
	if strings.Contains(err.Error(), "row 17") || !strings.Contains(err.Error(), "250017") || !strings.Contains(err.Error(), "for the peer") {
		t.Error(err)
	}
	for _, want := range []string{"level=INFO", "response=USER_REAUTH", "internal_code=250017", "row 17", "for the peer", "entity=device"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in %s", want, &log)
		}
	}
	if strings.Contains(log.String(), "INTERNAL_EXCEPTION") {
		t.Errorf("it is the application's: %s", &log)
	}
}

// TestAppErrorIsActedOn has a client try again as each response code asks for.
func TestAppErrorIsActedOn(t *testing.T) {
	skipWithRace(t)
	for response, want := range map[msl.ResponseCode]string{
		msl.Fail: "1 FAIL", msl.TransientFailure: "1 TRANSIENT_FAILURE",
		msl.EntityReauth: "2", msl.UserReauth: "2", msl.KeyXRequired: "2", msl.Expired: "2", msl.Replayed: "2",
		msl.EntityDataReauth: "1 ENTITYDATA_REAUTH",
		msl.UserDataReauth:   "2 USERDATA_REAUTH", msl.SSOTokenRejected: "2 SSOTOKEN_REJECTED",
	} {
		t.Run(response.String(), func(t *testing.T) {
			n := softNetwork(t)
			client := n.pskClient("device")
			var reasons []string
			prove := client.UserAuth
			client.UserAuth = func(ctx context.Context, user string, reason msl.ResponseCode) (*msl.UserAuthData, error) {
				if reason != 0 {
					reasons = append(reasons, reason.String())
				}
				return prove(ctx, user, 0)
			}
			req := plainly()
			req.User = "user@example.com"
			if _, _, err := send(t, client, req); err != nil { // for tokens
				t.Fatal(err)
			}
			calls := 0
			n.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
				if calls++; calls == 1 {
					return &msl.AppError{Response: response}
				}
				if m.User != req.User {
					t.Errorf("user %q", m.User)
				}
				return echo(ctx, w, m)
			}
			_, _, err := send(t, client, req)
			got := fmt.Sprint(calls)
			var refused *msl.PeerError
			if errors.As(err, &refused) {
				got += " " + refused.Response.String()
			}
			for _, reason := range reasons {
				got += " " + reason
			}
			if got != want {
				t.Errorf("%s, want %s (%v)", got, want, err)
			}
		})
	}
}

// TestAppErrorWithoutUser gives up where a request has no user who could prove
// anything else.
func TestAppErrorWithoutUser(t *testing.T) {
	for _, response := range []msl.ResponseCode{msl.UserDataReauth, msl.SSOTokenRejected} {
		n := softNetwork(t)
		client := n.pskClient("device")
		calls := 0
		n.handler = func(context.Context, *msl.ResponseWriter, *msl.Message) error {
			calls++
			return &msl.AppError{Response: response}
		}
		if err := peerError(t, client, plainly()); err.Response != response || calls != 1 {
			t.Errorf("%v after %d calls", err, calls)
		}
	}
}

// TestErrorsOfOthers has a handler pass on an error about another message, which it got
// as a client itself: the answer is to its own request all the same.
func TestErrorsOfOthers(t *testing.T) {
	skipWithRace(t)
	other := &msl.Error{Code: msl.ErrMessageExpired, MessageID: 4711}
	for want, err := range map[msl.ResponseCode]error{
		msl.Expired:      other,
		msl.Replayed:     &msl.AppError{Response: msl.Replayed, Err: other},
		msl.KeyXRequired: fmt.Errorf("x: %w", &msl.AppError{Response: msl.KeyXRequired, Err: other}),
	} {
		n := softNetwork(t)
		client := n.pskClient("device")
		n.handler = refusing(err)
		if got := peerError(t, client, plainly()); got.Response != want || got.MessageID == 4712 {
			t.Errorf("%v", got)
		}
	}
	one, two := newSides(t, "PSK", "PSK")
	first, second := connect(t, one, two)
	done := serveAll(second, refusing(&msl.AppError{Response: msl.UserDataReauth, Err: other}), 1)
	var refused *msl.PeerError
	if _, err := first.Request(t.Context(), secret2("x")); !errors.As(err, &refused) || refused.Response != msl.UserDataReauth {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
