package msl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// exchange sends data without protection to a server with that handler.
func exchange(t *testing.T, limits msl.Limits, data []byte, handle msl.Handler) ([]byte, error) {
	t.Helper()
	server := &msl.Server{
		Name: "server", Local: &entityauth.NoneEntity{Identity: "server"}, Limits: limits,
		Peers: []msl.EntityScheme{&entityauth.None{Anyone: true}}, Issuer: &msl.Issuer{}, State: &msl.MemoryState{},
	}
	defer server.Close()
	carry := byFunc(func(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
		var request, answer bytes.Buffer
		if err := write(&request); err != nil {
			return nil, err
		}
		err := server.Serve(ctx, "test", &request, &answer, handle)
		return io.NopCloser(&answer), err
	})
	c := &msl.Client{Local: &entityauth.NoneEntity{Identity: "device"}, Peers: []msl.EntityScheme{&entityauth.None{Anyone: true}}, Transport: carry}
	defer c.Close()
	r, err := c.Do(t.Context(), &msl.Request{Body: msl.BytesBody(data)})
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(r.Body)
	return answer, errors.Join(err, r.Body.Close())
}

type byFunc func(context.Context, func(io.Writer) error) (io.ReadCloser, error)

func (f byFunc) RoundTrip(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
	return f(ctx, write)
}

// TestReadAhead finds the length of messages that are not longer than asked for, and
// leaves every byte to be read.
func TestReadAhead(t *testing.T) {
	const chunk = 64 << 10
	for _, c := range []struct {
		size, ahead, held int
		have              int64
		whole             bool
	}{
		{0, 0, 0, 0, true},
		{5, 0, 0, 5, true},
		{5, -1, 0, 5, true},
		{3 * chunk, 0, 0, chunk, false},
		{3 * chunk, chunk + 1, 0, 2 * chunk, false},
		{3*chunk + 1, 4 * chunk, 0, 3*chunk + 1, true},
		{3 * chunk, 4 * chunk, chunk, chunk, false}, // Held is a bound, too
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			data := bytes.Repeat([]byte("0123456789abcdef"), c.size/16+1)[:c.size]
			_, err := exchange(t, msl.Limits{Held: c.held}, data, func(_ context.Context, _ *msl.ResponseWriter, m *msl.Message) error {
				have, whole, err := m.ReadAhead(c.ahead)
				if have != c.have || whole != c.whole || err != nil {
					t.Errorf("%d, %v, %v", have, whole, err)
				}
				if got, err := io.ReadAll(m.Body); !bytes.Equal(got, data) || err != nil {
					t.Errorf("then %d bytes, %v", len(got), err)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	if have, whole, err := (&msl.Message{Body: bytes.NewReader([]byte("x"))}).ReadAhead(10); have != 0 || whole || err != nil {
		t.Errorf("a body of somebody else: %d, %v, %v", have, whole, err)
	}
}

// TestErrorText sends a text of the application to the peer, and the cause to the log.
func TestErrorText(t *testing.T) {
	cause := errors.New("the cause")
	for _, c := range []struct {
		err          msl.Error
		told, logged string
	}{
		{msl.Error{Code: msl.ErrMSLCommsFailure}, msl.ErrMSLCommsFailure.Text(), "msl: " + msl.ErrMSLCommsFailure.Error()},
		{msl.Error{Code: msl.ErrMSLCommsFailure, Text: "it says no"}, "it says no", "msl: 9001 MSL_COMMS_FAILURE: it says no"},
		{msl.Error{Code: msl.ErrMSLCommsFailure, Op: "ask", Text: "it says no", Err: cause}, "it says no", "msl: ask: 9001 MSL_COMMS_FAILURE: the cause"},
	} {
		_, err := exchange(t, msl.Limits{}, nil, func(context.Context, *msl.ResponseWriter, *msl.Message) error { return &c.err })
		var peer *msl.PeerError
		if !errors.As(err, &peer) || peer.Message != c.told || peer.Code != c.err.Code {
			t.Errorf("the peer is told %v", err)
		}
		if c.err.Error() != c.logged {
			t.Errorf("logged %q, want %q", c.err.Error(), c.logged)
		}
	}
}
