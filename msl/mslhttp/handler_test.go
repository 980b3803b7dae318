package mslhttp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// A broken scheme has a key that cannot be reached.
type broken struct{ msl.LocalEntity }

func (broken) Credentials(context.Context) (msl.Credentials, error) {
	return msl.Credentials{}, keystore.ErrUnavailable
}

func TestHandlerStatus(t *testing.T) {
	none := &entityauth.NoneEntity{Identity: "server"}
	for _, test := range []struct {
		name, method, body string
		entity             msl.LocalEntity
		limit              int // signed answers for one source
		status             int
		hasBody            bool
	}{
		{"garbage gets an MSL error", "POST", "garbage", none, 10, 200, true},
		{"nothing gets an MSL error", "POST", "", none, 10, 200, true},
		{"no GET", "GET", "", none, 10, 405, true},
		{"no answer without the server's key", "POST", "garbage", broken{none}, 10, 503, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := &msl.Server{Local: test.entity, Issuer: &msl.Issuer{}, Limits: msl.Limits{ErrorsPerSource: test.limit}}
			defer server.Close()
			w := httptest.NewRecorder()
			(&Handler{Server: server}).ServeHTTP(w, httptest.NewRequest(test.method, "/", strings.NewReader(test.body)))
			if w.Code != test.status || (w.Body.Len() > 0) != test.hasBody {
				t.Errorf("status %d with %d bytes", w.Code, w.Body.Len())
			}
			if (w.Header().Get("Retry-After") != "") != (test.status == 503) {
				t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
			}
		})
	}
}

// TestHandlerBound sends garbage until the bound on signed answers is reached.
func TestHandlerBound(t *testing.T) {
	server := &msl.Server{Local: &entityauth.NoneEntity{Identity: "server"}, Issuer: &msl.Issuer{}, Limits: msl.Limits{ErrorsPerSource: 5}}
	defer server.Close()
	h := &Handler{Server: server}
	answers := map[int]int{}
	for range 50 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", "/", strings.NewReader("garbage")))
		answers[w.Code]++
	}
	if answers[200] < 5 || answers[200] > 10 || answers[503] != 50-answers[200] {
		t.Errorf("answers by status: %v", answers)
	}
}

// TestHandlerTooLong cuts off a body that is too long.
func TestHandlerTooLong(t *testing.T) {
	server := &msl.Server{Local: &entityauth.NoneEntity{Identity: "server"}, Issuer: &msl.Issuer{}}
	defer server.Close()
	s := httptest.NewServer(&Handler{Server: server, MaxBody: 1000})
	defer s.Close()
	response, err := http.Post(s.URL, "", io.MultiReader(strings.NewReader(`{"headerdata":"`), bytes.NewReader(bytes.Repeat([]byte("A"), 1<<20))))
	if err != nil {
		return // the server closed the connection during the request
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Log(err)
	}
	if response.StatusCode == 200 && !bytes.Contains(answer, []byte("errordata")) {
		t.Errorf("status %d, %q", response.StatusCode, answer)
	}
}

// A lostKey scheme has a key that is lost at some moment.
type lostKey struct {
	msl.LocalEntity
	gone *bool
}

func (s lostKey) Credentials(ctx context.Context) (msl.Credentials, error) {
	local, err := s.LocalEntity.Credentials(ctx)
	local.Protector = lostProtector{local.Protector, s.gone}
	return local, err
}

type lostProtector struct {
	msl.Protector
	gone *bool
}

func (p lostProtector) Sign(data []byte) ([]byte, error) {
	if *p.gone {
		return nil, keystore.ErrClosed
	}
	return p.Protector.Sign(data)
}

// If the application ran and there is no answer, the status does not ask for a retry.
func TestLostAnswerStatus(t *testing.T) {
	none, anyone := &entityauth.NoneEntity{Identity: "server"}, []msl.EntityScheme{&entityauth.None{Anyone: true}}
	for _, test := range []struct {
		name       string
		goneBefore bool
		ran        int
		status     int
	}{
		{"before the application", true, 0, http.StatusServiceUnavailable},
		{"after it", false, 1, http.StatusInternalServerError},
	} {
		gone, ran := test.goneBefore, 0
		server := &msl.Server{Local: lostKey{none, &gone}, Peers: anyone, Issuer: &msl.Issuer{}}
		h := httptest.NewServer(&Handler{Server: server, Handle: func(context.Context, *msl.ResponseWriter, *msl.Message) error {
			gone = true
			ran++
			return nil
		}})
		c := &msl.Client{Local: &entityauth.NoneEntity{Identity: "client"}, Peers: anyone, Transport: &Transport{URL: h.URL}}
		_, err := c.Do(context.Background(), &msl.Request{Body: msl.BytesBody([]byte("x"))})
		var instead *StatusError
		if !errors.As(err, &instead) || instead.Status != test.status || ran != test.ran || (instead.RetryAfter != "") == (test.ran > 0) {
			t.Errorf("%s: ran %d, %v", test.name, ran, err)
		}
		c.Close()
		h.Close()
		server.Close()
	}
}

// TestFailedAnswerStatus has the application fail when its answer has begun, and nothing of
// it was sent. The status blames neither the message nor the moment, for either of which it
// would be sent again.
func TestFailedAnswerStatus(t *testing.T) {
	none, anyone := &entityauth.NoneEntity{Identity: "server"}, []msl.EntityScheme{&entityauth.None{Anyone: true}}
	gzip := &msl.Capabilities{Compression: []string{"GZIP"}}
	answer := bytes.Repeat([]byte("it shrinks to less than is held back, 0123456789"), 2000)
	for i := 0; i < len(answer); i += 100 { // and not to what a peer takes for an attack
		answer[i] = byte(i / 100)
	}
	for _, failure := range []error{errors.New("broke off"), &msl.PeerError{Response: msl.Fail}, msl.ErrTruncated, msl.ErrResponseRequiresUserIDToken} {
		server := &msl.Server{Local: none, Peers: anyone, Issuer: &msl.Issuer{}, Capabilities: gzip}
		h := httptest.NewServer(&Handler{Server: server, Handle: func(_ context.Context, w *msl.ResponseWriter, _ *msl.Message) error {
			if _, err := w.Write(answer); err != nil {
				return err
			}
			return failure
		}})
		c := &msl.Client{Local: &entityauth.NoneEntity{Identity: "client"}, Peers: anyone, Transport: &Transport{URL: h.URL}, Capabilities: gzip}
		_, err := c.Do(context.Background(), &msl.Request{Body: msl.BytesBody([]byte("x"))})
		var instead *StatusError
		if !errors.As(err, &instead) || instead.Status != http.StatusInternalServerError || instead.RetryAfter != "" {
			t.Errorf("%v: %v", failure, err)
		}
		c.Close()
		h.Close()
		server.Close()
	}
}
