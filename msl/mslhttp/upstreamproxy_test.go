package mslhttp

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// secureService runs an HTTPS service that demands a client certificate.
func secureService(t *testing.T, a *authority) Target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	secured, err := (&TLSServer{Certificates: []TLSCertificate{a.issue("service.internal", keystore.ECDSAP256, nil)}, ClientCAs: a.pool()}).Listen(l)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: secured, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName+" asks "+r.TLS.ServerName)
	})}}
	s.Start()
	t.Cleanup(s.Close)
	return target(t, "https://"+l.Addr().String())
}

// TestUpstreamTLS reaches a service with its own authority, a client certificate, and
// another name than that of its URL; alone and through a proxy.
func TestUpstreamTLS(t *testing.T) {
	a := newAuthority(t)
	at, own := secureService(t, a), a.issue("gateway", keystore.ECDSAP256, nil)
	proxy, tunnels := testProxy(t)
	for name, c := range map[string]struct {
		tls   *TLSClient
		proxy *url.URL
		want  string
	}{
		"all":             {&TLSClient{Roots: a.pool(), ServerName: "service.internal", Certificate: &own}, nil, "gateway asks service.internal"},
		"through a proxy": {&TLSClient{Roots: a.pool(), ServerName: "service.internal", Certificate: &own}, proxy, "gateway asks service.internal"},
		"system's roots":  {nil, nil, ""},
		"another name":    {&TLSClient{Roots: a.pool(), Certificate: &own}, nil, ""},
		"no certificate":  {&TLSClient{Roots: a.pool(), ServerName: "service.internal"}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			before := tunnels.Load()
			got, err := through(t, &Upstream{Targets: []Target{at}, TLS: c.tls, Proxy: c.proxy}, nil)
			if got != c.want || (err == nil) != (c.want != "") {
				t.Errorf("%q, %v", got, err)
			}
			if (tunnels.Load() > before) != (c.proxy != nil) {
				t.Errorf("%d tunnels", tunnels.Load()-before)
			}
		})
	}
}

// TestUpstreamWantsCertificate has a place that refuses the gateway by TLS 1.3, where the
// request is sent before the alert comes: it did not get the message, and is spared.
func TestUpstreamWantsCertificate(t *testing.T) {
	a := newAuthority(t)
	strict, lax := secureService(t, a), service(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "lax") })
	u := &Upstream{Targets: []Target{lax, strict}, TLS: &TLSClient{Roots: a.pool(), ServerName: "service.internal"}}
	c := noneClient(t, serve(t, &Handler{Handle: (&Gateway{Upstream: u}).Handle}))
	var peer *msl.PeerError
	if got, err := ask(t, c, []byte("data")); !errors.As(err, &peer) || peer.Response != msl.TransientFailure || !strings.Contains(err.Error(), textUnreached) {
		t.Errorf("%q, %v", got, err)
	}
	for range 3 {
		if got, err := ask(t, c, []byte("data")); got != "lax" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// testProxy is a proxy for user:secret that tells how many tunnels it made.
func testProxy(t *testing.T) (*url.URL, *atomic.Int32) {
	t.Helper()
	var tunnels atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Proxy-Authorization") != "Basic dXNlcjpzZWNyZXQ=" {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		if r.Method != http.MethodConnect {
			io.WriteString(w, "proxy for "+r.URL.String()+r.Header.Get("Authorization"))
			return
		}
		tunnels.Add(1)
		there, err := net.Dial("tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer there.Close()
		w.WriteHeader(http.StatusOK)
		here, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer here.Close()
		go io.Copy(there, buffered)
		io.Copy(here, there)
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("user", "secret")
	return u, &tunnels
}

// TestUpstreamProxy passes through a proxy that is named, and only that.
func TestUpstreamProxy(t *testing.T) {
	proxy, _ := testProxy(t)
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"} {
		t.Setenv(name, proxy.String())
	}
	// net/http never uses the environment's proxy for localhost.
	away := target(t, "http://service.invalid:80/x")
	if got, err := through(t, &Upstream{Targets: []Target{away}}, nil); err == nil || strings.Contains(got, "proxy") {
		t.Errorf("by the environment: %q, %v", got, err)
	}
	if got, err := through(t, &Upstream{Targets: []Target{away}, Proxy: proxy}, nil); got != "proxy for http://service.invalid:80/x" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	wrong := *proxy
	wrong.User = url.UserPassword("user", "guess")
	var seen reported
	u := &Upstream{Targets: []Target{target(t, "https://service.invalid/")}, Proxy: &wrong}
	_, err := ask(t, noneClient(t, serve(t, &Handler{Handle: (&Gateway{Upstream: u}).Handle, Report: seen.report})), nil)
	if err == nil {
		t.Error("no error")
	}
	if logged := seen.last(t).Err.Error(); !strings.Contains(logged, "407 Proxy Authentication Required") || strings.Contains(logged, "guess") {
		t.Errorf("logged %s", logged)
	}
}

// TestUpstreamPassword has the password of a URL sent, and never shown.
func TestUpstreamPassword(t *testing.T) {
	at := service(t, func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		io.WriteString(w, user+" "+password)
	})
	at.URL.User = url.UserPassword("msl", "secret")
	if got, err := through(t, &Upstream{Targets: []Target{at}}, nil); got != "msl secret" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	at.URL.Host = "127.0.0.1:1"
	var seen reported
	h := &Handler{Handle: (&Gateway{Upstream: &Upstream{Targets: []Target{at}}}).Handle, Report: seen.report}
	if _, err := ask(t, noneClient(t, serve(t, h)), nil); err == nil || strings.Contains(err.Error()+seen.last(t).Err.Error(), "secret") {
		t.Errorf("%v, %v", err, seen.last(t).Err)
	}
}
