package mslhttp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// passOn sends one message through a gateway to url, and returns its number and
// what the device is told.
func passOn(t *testing.T, url string) (id int64, err error) {
	g := &Gateway{URL: url, Timeout: 100 * time.Millisecond}
	err = tell(t, func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		id = m.MessageID
		return g.Handle(ctx, w, m)
	})
	return id, err
}

// tell sends a message without protection to a server with that handler, and returns
// what the device is told.
func tell(t *testing.T, handle msl.Handler) error {
	t.Helper()
	return tellData(t, "open the door", handle)
}

// tellData is tell for a message with that data.
func tellData(t *testing.T, data string, handle msl.Handler) error {
	t.Helper()
	server := &msl.Server{
		Name: "server", Local: &entityauth.NoneEntity{Identity: "server"},
		Peers: []msl.EntityScheme{&entityauth.None{Anyone: true}}, Issuer: &msl.Issuer{}, State: &msl.MemoryState{},
	}
	defer server.Close()
	carry := carrier(func(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
		var request, answer bytes.Buffer
		if err := write(&request); err != nil {
			return nil, err
		}
		err := server.Serve(ctx, "test", &request, &answer, handle)
		return io.NopCloser(&answer), err
	})
	c := &msl.Client{Local: &entityauth.NoneEntity{Identity: "device"}, Peers: []msl.EntityScheme{&entityauth.None{Anyone: true}}, Transport: carry}
	defer c.Close()
	r, err := c.Do(context.Background(), &msl.Request{Body: msl.BytesBody([]byte(data))})
	if err != nil {
		return err
	}
	_, err = io.ReadAll(r.Body)
	return errors.Join(err, r.Body.Close())
}

type carrier func(context.Context, func(io.Writer) error) (io.ReadCloser, error)

func (f carrier) RoundTrip(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
	return f(ctx, write)
}

// TestGatewayTellsWhatMayHaveHappened checks that a message is repeated only if the
// service did not get it, or asks for that itself.
func TestGatewayTellsWhatMayHaveHappened(t *testing.T) {
	for name, c := range map[string]struct {
		serve func(http.ResponseWriter, *http.Request)
		want  msl.ResponseCode
	}{
		"out of reach":  {nil, msl.TransientFailure},
		"503":           {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, msl.TransientFailure},
		"409":           {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(409) }, msl.Fail},
		"no answer":     {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, msl.Fail},
		"a late answer": {func(_ http.ResponseWriter, r *http.Request) { time.Sleep(300 * time.Millisecond) }, msl.Fail},
		"half an answer": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9")
			io.WriteString(w, "opened")
			panic(http.ErrAbortHandler)
		}, msl.Fail},
		"an answer": {func(http.ResponseWriter, *http.Request) {}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var seen string
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				seen = r.Header.Get("Msl-Message-Id")
				c.serve(w, r)
			}))
			if c.serve == nil {
				s.Close()
			}
			id, err := passOn(t, s.URL)
			s.Close()
			var answer *msl.PeerError
			switch {
			case c.want == 0 && err != nil:
				t.Error(err)
			case c.want != 0 && (!errors.As(err, &answer) || answer.Response != c.want):
				t.Errorf("%v, want %v", err, c.want)
			case c.serve != nil && seen != strconv.FormatInt(id, 10):
				t.Errorf("the service saw message %q of %d", seen, id)
			}
		})
	}
}
