package agent

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/watchdog"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

func TestStatus(t *testing.T) {
	peer := func(r msl.ResponseCode) error { return fmt.Errorf("x: %w", &msl.PeerError{Response: r, Code: -1}) }
	for _, test := range []struct {
		err    error
		status int
		again  int
	}{
		{peer(msl.Fail), 502, 0}, {peer(msl.KeyXRequired), 502, 0},
		{peer(msl.TransientFailure), 503, 1}, {peer(msl.Expired), 503, 1}, {peer(msl.Replayed), 503, 1},
		{peer(msl.EntityReauth), 403, 0}, {peer(msl.EntityDataReauth), 403, 0},
		{peer(msl.UserReauth), 403, 0}, {peer(msl.UserDataReauth), 403, 0}, {peer(msl.SSOTokenRejected), 403, 0},
		{context.DeadlineExceeded, 504, 1}, {os.ErrDeadlineExceeded, 504, 1},
		{msl.Failure(msl.ErrSignatureError, "sign", keystore.ErrUnavailable), 503, 1},
		{msl.Failure(msl.ErrSignatureError, "sign", keystore.ErrBusy), 503, 1},
		{msl.Failure(msl.ErrSignatureError, "sign", keystore.ErrForeign), 500, 0},
		{keystore.ErrPIN, 500, 0}, {keystore.ErrNotFound, 500, 0},
		{&url.Error{Op: "Post", Err: errors.New("refused")}, 502, 1},
		{&mslhttp.StatusError{Status: 503, RetryAfter: "9"}, 503, 9},
		{&mslhttp.StatusError{Status: 429, RetryAfter: "Fri, 31 Dec 1999 23:59:59 GMT"}, 503, 1},
		{&mslhttp.StatusError{Status: 500}, 502, 0},
		{&mslhttp.StatusError{Status: 413}, 413, 0},
		{msl.Failure(msl.ErrMasterTokenUntrusted, "", nil), 502, 0}, {msl.ErrTruncated, 502, 0},
		{errors.New("the disk is full"), 500, 0},
		{msl.Failure(msl.ErrMSLParseError, "", &mslhttp.NotMessageError{Found: "HTML"}), 502, 0},
		{fmt.Errorf("%w: %w", msl.ErrAnswerUnread, keystore.ErrUnavailable), 502, 0}, // the server may have acted
		{watchdog.ErrHung, 503, 1}, {msl.ErrForgotten, 503, 1},
		{fmt.Errorf("x: %w", &msl.PeerError{Response: msl.Fail, Code: msl.ErrUserIDTokenRevoked}), 403, 0},
	} {
		if s := statusOf(test.err); s.Status != test.status || s.RetryAfter != test.again || s.Err != test.err {
			t.Errorf("%v: %d after %d s, want %d after %d s", test.err, s.Status, s.RetryAfter, test.status, test.again)
		}
	}
}
