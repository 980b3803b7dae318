package fleet

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// busyTransport answers with these statuses, and then as a server that is not there.
type busyTransport struct {
	answers []mslhttp.StatusError
	asked   int
}

var errGone = errors.New("gone")

func (b *busyTransport) RoundTrip(context.Context, func(io.Writer) error) (io.ReadCloser, error) {
	b.asked++
	if b.asked > len(b.answers) {
		return nil, errGone
	}
	return nil, &b.answers[b.asked-1]
}

// TestBusy comes back when a busy server says so, for a bounded time.
func TestBusy(t *testing.T) {
	busy := mslhttp.StatusError{Status: 503, RetryAfter: "1"}
	long := mslhttp.StatusError{Status: 503, RetryAfter: "3600"}
	mute := mslhttp.StatusError{Status: 503}
	wrong := mslhttp.StatusError{Status: 404, RetryAfter: "1"}
	for name, tt := range map[string]struct {
		answers     []mslhttp.StatusError
		asked       int
		least, most time.Duration
	}{
		"not busy": {nil, 1, 0, 0}, "once": {[]mslhttp.StatusError{busy}, 2, time.Second, 3 * time.Second},
		"always":   {[]mslhttp.StatusError{busy, busy, busy, busy, busy, busy, busy}, 6, 15 * time.Second, 31 * time.Second},
		"too long": {[]mslhttp.StatusError{long}, 1, 0, 0}, "no time": {[]mslhttp.StatusError{mute}, 1, 0, 0}, "another": {[]mslhttp.StatusError{wrong}, 1, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			transport := &busyTransport{answers: tt.answers}
			client := NewClient(nil, transport)
			defer client.Close()
			begin := time.Now()
			_, err := Exchange(client, "server")(t.Context(), []byte("{}"))
			took := time.Since(begin)
			if err == nil || transport.asked != tt.asked || took < tt.least || took > tt.most {
				t.Errorf("%s: asked %d times in %v: %v", name, transport.asked, took, err)
			}
		})
	}
}

// silentTransport does not answer.
type silentTransport struct{}

func (silentTransport) RoundTrip(ctx context.Context, _ func(io.Writer) error) (io.ReadCloser, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestSilent gives up a server that accepts a message and does not answer.
func TestSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := NewClient(nil, silentTransport{})
		defer client.Close()
		begin := time.Now()
		_, err := Exchange(client, "server")(t.Context(), []byte("{}"))
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "the server did not answer within 1m0s: check that it is not overloaded, and try again: ") {
			t.Error(err)
		}
		if took := time.Since(begin); took != answerTime {
			t.Errorf("took %v", took)
		}
	})
}

// TestBusyUntil reads a date, and ends with the context.
func TestBusyUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := time.Now().Add(10 * time.Second).UTC().Format(http.TimeFormat)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		asked, begin := 0, time.Now()
		_, err := whenNotBusy(ctx, func() ([]byte, error) {
			asked++
			return nil, &mslhttp.StatusError{Status: 503, RetryAfter: at}
		})
		if !errors.Is(err, context.DeadlineExceeded) || asked != 1 || time.Since(begin) != 5*time.Second {
			t.Errorf("%d, %v, %v", asked, time.Since(begin), err)
		}
	})
}

// TestBusyAuthority comes back to an authority that was too busy to look at a message, and not
// to one that is full.
func TestBusyAuthority(t *testing.T) {
	unread := proof.ErrorResult("", proof.Fail(proof.ErrBusy, "more than 50 messages per second"))
	full := proof.ErrorResult("00ff", proof.Fail(proof.ErrBusy, "20000 devices wait"))
	refused := proof.ErrorResult("", proof.Fail(proof.ErrMalformed, "no message"))
	for name, tt := range map[string]struct {
		answers [][]byte
		asked   int
	}{
		"once": {[][]byte{unread, refused}, 2}, "full": {[][]byte{full}, 1}, "refused": {[][]byte{refused}, 1}, "nothing": {[][]byte{nil}, 1},
		"always": {[][]byte{unread, unread, unread, unread, unread, unread, unread}, 6},
	} {
		synctest.Test(t, func(t *testing.T) {
			asked, begin := 0, time.Now()
			answer, err := whenNotBusy(t.Context(), func() ([]byte, error) {
				asked++
				return tt.answers[asked-1], nil
			})
			if err != nil || asked != tt.asked || string(answer) != string(tt.answers[asked-1]) || (time.Since(begin) > 0) != (asked > 1) {
				t.Errorf("%s: asked %d times in %v: %s, %v", name, asked, time.Since(begin), answer, err)
			}
		})
	}
}
