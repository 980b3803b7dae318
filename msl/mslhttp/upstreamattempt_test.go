package mslhttp

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// A mute transport sends a request, and tells of no connection.
type mute struct{ hits int }

func (m *mute) RoundTrip(r *http.Request) (*http.Response, error) {
	m.hits++
	_, err := io.Copy(io.Discard, r.Body)
	return nil, errors.Join(errors.New("the answer did not come"), err, r.Body.Close())
}

// TestUpstreamMute has a transport that does not tell whether it sent the request: no
// other target may get it, nor what is left of its body.
func TestUpstreamMute(t *testing.T) {
	m := &mute{}
	u := &Upstream{Targets: []Target{target(t, "http://a/"), target(t, "http://b/")}, Transport: m}
	if _, err := through(t, u, []byte("x")); !errors.Is(err, msl.ErrMSLCommsFailure) || m.hits != 1 {
		t.Errorf("%d requests, %v", m.hits, err)
	}
}

// TestUpstreamUnsendable has a sender write what HTTP does not permit. No target is taken
// for one that is down.
func TestUpstreamUnsendable(t *testing.T) {
	works := service(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Method) })
	for name, c := range map[string]struct {
		method, header, value string
		sent                  bool
	}{
		"header": {"PUT", "a b", "x", true},
		"value":  {"PUT", "X-A", "a\nb", true},
		"method": {"P T", "X-A", "x", false},
	} {
		t.Run(name, func(t *testing.T) {
			u := &Upstream{Targets: []Target{works, works}}
			r := &http.Request{Method: c.method, Header: http.Header{c.header: {c.value}}}
			response, err := u.Do(&msl.Message{Body: strings.NewReader("x")}, r.WithContext(t.Context()))
			if (err == nil) != c.sent || !c.sent && !errors.Is(err, msl.ErrMSLCommsFailure) {
				t.Errorf("%v", err)
			}
			if err == nil {
				response.Body.Close()
			}
			for _, p := range u.places {
				if !p.fit(time.Now()) {
					t.Error("a target is spared")
				}
			}
		})
	}
}

// TestUpstreamFields refuses what cannot work.
func TestUpstreamFields(t *testing.T) {
	for name, u := range map[string]*Upstream{
		"no target":         {},
		"an empty target":   {Targets: []Target{{}}},
		"a reserved header": {Targets: []Target{target(t, "http://host/")}, Header: http.Header{"Msl_Entity": {"x"}}},
		"no header":         {Targets: []Target{target(t, "http://host/")}, Header: http.Header{"X Y": {"x"}}},
		"no value":          {Targets: []Target{target(t, "http://host/")}, Header: http.Header{"X": {"secret\r\n"}}},
		"negative period":   {Targets: []Target{target(t, "http://host/")}, Check: HealthCheck{Path: "/", Interval: -1}},
		"negative time":     {Targets: []Target{target(t, "http://host/")}, Check: HealthCheck{Path: "/", Timeout: -1}},
		"no host":           {Targets: []Target{{}}, Transport: &mute{}},
		"no version of TLS": {Targets: []Target{target(t, "https://host/")}, TLS: &TLSClient{MinVersion: 1}},
	} {
		if err := u.Start(t.Context()); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := through(t, u, nil); !errors.Is(err, msl.ErrInternalException) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
