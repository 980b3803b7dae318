package mslhttp

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/httpform"
)

// TestGatewayHeaders checks what the service learns about a sender.
func TestGatewayHeaders(t *testing.T) {
	for name, c := range map[string]struct {
		message msl.Message
		want    map[string]string
	}{
		"a device": {
			msl.Message{Identity: "camera 7", Scheme: "PSK", MessageID: 42, Encrypted: true, Authenticated: true},
			map[string]string{"Entity": "camera%207", "User": "", "Scheme": "PSK", "Message-Id": "42", "Encrypted": "true", "Authenticated": "true", "Non-Replayable": "false"},
		},
		"a user": {
			msl.Message{Identity: "a\r\nMsl-User: root", User: "ada@example.com", MessageID: 1 << 53, NonReplayable: true},
			map[string]string{"Entity": "a%0D%0AMsl-User:%20root", "User": "ada@example.com", "Scheme": "", "Message-Id": "9007199254740992", "Encrypted": "false", "Authenticated": "false", "Non-Replayable": "true"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := http.Header{}
			addSender(h, &c.message)
			for header, want := range c.want {
				if got := h.Get("Msl-" + header); got != want {
					t.Errorf("Msl-%s: %q, want %q", header, got, want)
				}
			}
		})
	}
}

func FuzzEncodeName(f *testing.F) {
	for _, name := range []string{"", "camera 7", "100%", "%41", "größe", "a\r\nb: c", "\x00\xff\x7f"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		encoded := EncodeName(name)
		if strings.ContainsFunc(encoded, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Errorf("%q: %q", name, encoded)
		}
		if decoded, err := url.PathUnescape(encoded); err != nil || decoded != name {
			t.Errorf("%q: %q is %q, %v", name, encoded, decoded, err)
		}
	})
}

// TestGatewayRequest uses a client of its own, and the defaults.
func TestGatewayRequest(t *testing.T) {
	var got []string
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		got = append(got, r.Method+" "+r.URL.Path+" "+string(data))
		if r.URL.Path == "/old" {
			http.Redirect(w, r, "/new", http.StatusTemporaryRedirect)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer service.Close()
	for _, c := range []struct {
		gateway *Gateway
		want    string
		err     error
	}{
		{&Gateway{URL: service.URL + "/a"}, "POST /a data", nil},
		{&Gateway{URL: service.URL + "/a", Method: "PUT", Timeout: -1, Client: service.Client()}, "PUT /a data", nil},
		{&Gateway{URL: service.URL + "/old", Client: service.Client()}, "POST /old data", msl.ErrMSLCommsFailure},
		{&Gateway{URL: service.URL + "/old"}, "POST /old data", msl.ErrMSLCommsFailure},
	} {
		got = nil
		err := c.gateway.Handle(context.Background(), &msl.ResponseWriter{}, &msl.Message{Body: strings.NewReader("data")})
		if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) || len(got) != 1 || got[0] != c.want {
			t.Errorf("%q, %v: want %q, %v", got, err, c.want, c.err)
		}
	}
	if service.Client().CheckRedirect != nil {
		t.Error("the client of the caller was changed")
	}
	if err := (&Gateway{URL: service.URL, Method: "NO METHOD"}).Handle(context.Background(), &msl.ResponseWriter{}, &msl.Message{}); err == nil || !strings.Contains(err.Error(), "upstream request") {
		t.Errorf("not a method: %v", err)
	}
}

// TestGatewayNoCompression has a service say that its response is sent as it is.
func TestGatewayNoCompression(t *testing.T) {
	for _, test := range []struct {
		name, value string
		want        bool
	}{
		{"", "", false}, {"Cache-Control", "no-store", false}, {"Cache-Control", "no-transformers", false}, {"Msl-No-Compression", "false", false},
		{"Cache-Control", "no-transform", true}, {"Cache-Control", "no-store, No-Transform ,max-age=1", true}, {"Msl-No-Compression", "true", true},
	} {
		service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			if test.name != "" {
				w.Header().Set(test.name, test.value)
			}
			io.WriteString(w, "answer")
		}))
		target, err := ParseTarget(service.URL)
		if err != nil {
			t.Fatal(err)
		}
		whole := &HTTPGateway{Upstream: &Upstream{Targets: []Target{target}}, Rules: HTTPRules{Paths: []string{"/"}}}
		form := httpform.RequestLine + "GET /x HTTP/1.1\r\nHost: \r\n\r\n"
		for data, handle := range map[string]msl.Handler{"data": (&Gateway{URL: service.URL}).Handle, form: whole.Handle} {
			got := false
			err := tellData(t, data, func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
				err := handle(ctx, w, m)
				got = w.Uncompressed
				return err
			})
			if err != nil || got != test.want {
				t.Errorf("%.20q, %s: %s: %v, %v", data, test.name, test.value, got, err)
			}
		}
		service.Close()
	}
}
