package mslhttp

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// TestForgedHeaders gives an upstream the headers that a sender wrote. None of them may
// be taken for one of the upstream's, by whatever rules a service reads names.
func TestForgedHeaders(t *testing.T) {
	forged := http.Header{
		"Msl-Entity": {"admin"}, "msl-user": {"admin"}, "MSL_USER": {"admin"}, "Msl_Tls-Client_Subject": {"CN=admin"}, "Msl-Anything": {"x"},
		"X-Forwarded-For": {"10.0.0.1"}, "X_Forwarded_For": {"10.0.0.1"}, "X-Forwarded-Proto": {"https"}, "Forwarded": {"for=10.0.0.1"}, "X-Real-Ip": {"10.0.0.1"},
		"Authorization": {"Bearer forged"}, "X_Api_Key": {"forged"}, "x-api-key": {"forged"},
		"Host": {"elsewhere"}, "Content-Length": {"7"}, "Transfer_Encoding": {"chunked"}, "Connection": {"close, X-Hop"}, "X-Hop": {"x"}, "X_hop": {"x"},
		"Msl.User": {"admin"}, "MSL+USER": {"admin"}, "X.Api~Key": {"forged"}, "Content.Length": {"7"},
		"X Own": {"x"}, "X-Own:": {"x"}, "": {"x"}, "X-\u212aey": {"x"}, "X-Ended": {"a", "b\r\nMsl-User: admin"}, "X-Nul": {"\x00"},
		"X-Del": {"\x7f"}, "X-Unit": {"\x1f"}, "X-Tab": {"a\tb"}, "X-09azaz": {"x"}, "X/": {"x"}, "X@": {"x"}, "X[": {"x"}, "X{": {"x"},
		"Proxy-Authorization": {"Basic x"}, "Upgrade": {"websocket"}, "Te": {"trailers"}, "Trailer": {"x"}, "Keep-Alive": {"x"}, "Expect": {"100-continue"},
		"Accept": {"text/plain"}, "User-Agent": {"camera/7"}, "X-Own": {"a", "b"},
	}
	u := &Upstream{Header: http.Header{"Authorization": {"Bearer fixed"}, "X-API-Key": {"fixed"}}}
	r := httptest.NewRequest("POST", "/", nil)
	r.Header = forged
	got := u.headers(&msl.Message{Identity: "camera"}, r)
	want := http.Header{
		"Accept": {"text/plain"}, "User-Agent": {"camera/7"}, "X-Own": {"a", "b"}, "X-Tab": {"a\tb"}, "X-09azaz": {"x"},
		"Authorization": {"Bearer fixed"}, "X-Api-Key": {"fixed"},
		"Msl-Entity": {"camera"}, "Msl-Message-Id": {"0"}, "Msl-Encrypted": {"false"}, "Msl-Authenticated": {"false"}, "Msl-Non-Replayable": {"false"},
	}
	if !maps.EqualFunc(got, want, func(a, b []string) bool { return slices.Equal(a, b) }) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// TestUserAgent names this program to a service if the sender names none.
func TestUserAgent(t *testing.T) {
	if got := new(Upstream).headers(&msl.Message{}, httptest.NewRequest("POST", "/", nil))["User-Agent"]; !slices.Equal(got, []string{userAgent}) {
		t.Errorf("User-Agent: %q", got)
	}
}

func TestCheckHeaderName(t *testing.T) {
	for name, want := range map[string]bool{
		"Authorization": true, "x_api_key": true, "0": true, "9": true, "~": true, "A": true, "Z": true,
		"": false, "a b": false, "a:": false, "é": false, "Msl-User": false, "Forwarded": false, "Connection": false, "transfer_encoding": false, "Proxy-X": false,
	} {
		if err := CheckHeaderName(name); (err == nil) != want {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestOriginHeaders tells the service where a message came from.
func TestOriginHeaders(t *testing.T) {
	camera := &x509.Certificate{Subject: pkix.Name{CommonName: "camera 7", Organization: []string{"Größe\r\nX: y"}}}
	trusted := TrustedProxies{netip.MustParsePrefix("10.0.0.0/8")}
	for name, c := range map[string]struct {
		from      string
		forwarded string
		tls       *tls.ConnectionState
		want      [3]string // address, server name, subject
	}{
		"alone":              {"192.0.2.7:1234", "", nil, [3]string{"192.0.2.7"}},
		"version 6":          {"[2001:db8::7%eth0]:1", "", nil, [3]string{"2001:db8::7"}},
		"a claim":            {"192.0.2.7:1234", "198.51.100.1", nil, [3]string{"192.0.2.7"}},
		"behind a proxy":     {"10.1.1.1:1", "6.6.6.6, 198.51.100.1, 10.2.2.2", nil, [3]string{"198.51.100.1"}},
		"behind version 6":   {"10.1.1.1:1", "2001:db8::1:2", nil, [3]string{"2001:db8::1:2"}},
		"no address":         {"@", "", nil, [3]string{}},
		"TLS":                {"192.0.2.7:1", "", &tls.ConnectionState{ServerName: "msl.example"}, [3]string{"192.0.2.7", "msl.example"}},
		"client certificate": {"192.0.2.7:1", "", &tls.ConnectionState{PeerCertificates: []*x509.Certificate{camera}}, [3]string{"192.0.2.7", "", EncodeName(camera.Subject.String())}},
	} {
		t.Run(name, func(t *testing.T) {
			origin := httptest.NewRequest("POST", "/", nil)
			origin.RemoteAddr, origin.TLS = c.from, c.tls
			if c.forwarded != "" {
				origin.Header.Set("X-Forwarded-For", c.forwarded)
			}
			r := httptest.NewRequest("POST", "/", nil).WithContext(withRequest(t.Context(), origin))
			h := (&Upstream{Trusted: trusted}).headers(&msl.Message{}, r)
			if got := [3]string{h.Get("Msl-Client-Address"), h.Get("Msl-Tls-Server-Name"), h.Get("Msl-Tls-Client-Subject")}; got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if h.Get("X-Forwarded-For") != c.want[0] || strings.ContainsAny(h.Get("Msl-Tls-Client-Subject"), "\r\n") {
				t.Errorf("%q", h)
			}
		})
	}
}

// TestOriginOfAMessage sends one through all of it.
func TestOriginOfAMessage(t *testing.T) {
	at := service(t, func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(r.Header.Get("Msl-Client-Address") + " " + r.Header.Get("X-Forwarded-For")))
	})
	if got, err := through(t, &Upstream{Targets: []Target{at}}, []byte("x")); got != "127.0.0.1 127.0.0.1" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestOriginByTLS has the service learn what TLS proved about a client.
func TestOriginByTLS(t *testing.T) {
	a := newAuthority(t)
	at := service(t, func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(r.Header.Get("Msl-Tls-Server-Name") + " " + r.Header.Get("Msl-Tls-Client-Subject")))
	})
	h := &Handler{Server: noneServer(t), Handle: (&Gateway{Upstream: &Upstream{Targets: []Target{at}}}).Handle}
	addr := startHandler(t, &TLSServer{Certificates: []TLSCertificate{a.issue("msl.example", keystore.ECDSAP256, nil)}, ClientCAs: a.pool()}, h)
	own := a.issue("camera 7", keystore.ECDSAP256, nil)
	carry, err := (&TLSClient{Roots: a.pool(), Certificate: &own, ServerName: "msl.example"}).Transport()
	if err != nil {
		t.Fatal(err)
	}
	defer carry.CloseIdleConnections()
	c := noneClient(t, "")
	c.Transport = &Transport{URL: "https://" + addr, Client: &http.Client{Transport: carry}}
	if got, err := ask(t, c, []byte("x")); got != "msl.example CN=camera%207" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestUpstreamNotPrinted tries the verbs of package fmt, and JSON, as a log does.
func TestUpstreamNotPrinted(t *testing.T) {
	to, err := ParseTarget("http://ada:secret@service.example/")
	if err != nil {
		t.Fatal(err)
	}
	u := &Upstream{Targets: []Target{to}, Header: http.Header{"Authorization": {"Bearer secret"}}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		if text := fmt.Sprintf(verb, u); !strings.Contains(text, "service.example") || strings.Contains(text, "secret") {
			t.Errorf("%s prints %s", verb, text)
		}
	}
	for _, verb := range []string{"%v", "%+v", "%s", "%q"} {
		if text := fmt.Sprintf(verb, to); strings.Contains(text, "secret") {
			t.Errorf("%s prints %s", verb, text)
		}
	}
	if field, _ := reflect.TypeFor[Upstream]().FieldByName("Header"); field.Tag.Get("json") != "-" {
		t.Error("JSON has the header")
	}
}
