package cli

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// sendWith runs send with a client configuration of its own.
func (s *site) sendWith(client string) (string, error) {
	s.Helper()
	s.write("with.yaml", "client:\n"+client)
	var out bytes.Buffer
	p := &program{defaults: cheap, stdout: &out, stderr: io.Discard, stdin: strings.NewReader("")}
	p.flags.config = s.path("with.yaml")
	err := runSend(p, context.Background(), nil, config.Client{}, sendFlags{data: "x"}, true)
	return out.String(), err
}

// changing is a server whose answers are those of the site, changed on their way.
func (s *site) changing(change func(answer []byte) []byte) string {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, err := http.Post(s.url, "", r.Body)
		if err != nil {
			s.Error(err)
			return
		}
		defer answer.Body.Close()
		all, err := io.ReadAll(answer.Body)
		if err != nil {
			s.Error(err)
		}
		changed := change(all)
		w.Header().Set("Content-Length", strconv.Itoa(len(changed)))
		_, _ = w.Write(changed)
	}))
	s.Cleanup(web.Close)
	return web.URL
}

// damaged changes a character of the value of the nth member that has that name.
func damaged(name string, n int) func([]byte) []byte {
	return func(answer []byte) []byte {
		at := 0
		for range n {
			at += bytes.Index(answer[at:], []byte(`"`+name+`":"`)) + len(name) + 4
		}
		if answer[at+2] == 'A' {
			answer[at+2] = 'B'
			return answer
		}
		answer[at+2] = 'A'
		return answer
	}
}

// publicPEM is a public key that belongs to nobody here.
func publicPEM(t *testing.T, rsaKey bool) string {
	var public any
	if rsaKey {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		public = key.Public()
	} else {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		public = key.Public()
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// TestSendUntrusted tells a server that is not the trusted one from one that does not
// answer and from one that refuses.
func TestSendUntrusted(t *testing.T) {
	skipWithRace(t)
	s := newSite(t)
	s.write("otherrsa.pem", publicPEM(t, true))
	s.write("otherec.pem", publicPEM(t, false))
	known, err := os.ReadFile(s.path("camera.psk"))
	if err != nil {
		t.Fatal(err)
	}
	s.write("stranger.psk", strings.Replace(string(known), "camera", "stranger", 1))
	own := "  psk: camera.psk\n  server-key: server.pem\n"
	for name, c := range map[string]struct {
		url, client, want string
		code              int
	}{
		"as it is":                 {s.url, own, "", 0},
		"another RSA key":          {s.url, "  psk: camera.psk\n  server-key: otherrsa.pem\n", "--server-key", exit.Untrusted},
		"an EC key":                {s.url, "  psk: camera.psk\n  server-key: otherec.pem\n", "--server-key", exit.Untrusted},
		"another name of the key":  {s.url, own + "  server-key-id: other\n", "--server-key", exit.Untrusted},
		"another identity":         {s.url, own + "  recipient: other\n", "--recipient", exit.Untrusted},
		"keys instead of a key":    {s.url, "  psk: camera.psk\n  server-psk: camera.psk\n  recipient: camera\n", "not the trusted one", exit.Untrusted},
		"header signature":         {s.changing(damaged("signature", 1)), own, "not the trusted one", exit.Untrusted},
		"header data":              {s.changing(damaged("headerdata", 1)), own, "not the trusted one", exit.Untrusted},
		"header data after tokens": {s.changing(damaged("headerdata", 1)), own + "  state: warm.db\n", "not the trusted one", exit.Untrusted},
		"payload signature":        {s.changing(damaged("signature", 2)), own, "not the trusted one", exit.Untrusted},
		"an entity not registered": {s.url, "  psk: stranger.psk\n  server-key: server.pem\n", "register", exit.Refused},
		"no end":                   {s.changing(func(b []byte) []byte { return b[:bytes.Index(b, []byte(`}{`))+1] }), own, "ends before", exit.NoAnswer},
		"half a chunk":             {s.changing(func(b []byte) []byte { return b[:len(b)-9] }), own, "ends before", exit.NoAnswer},
		"nobody's header":          {s.changing(func([]byte) []byte { return []byte(`{"headerdata":"eyJh","signature":"eyJh"}`) }), own, "not the trusted one", exit.Untrusted},
		"a header of numbers":      {s.changing(func([]byte) []byte { return []byte(`{"headerdata":1,"signature":2}`) }), own, "MSL", exit.NoAnswer},
		"chunks that are none":     {s.changing(func(b []byte) []byte { return append(b[:bytes.Index(b, []byte(`}{`))+1], "{}"...) }), own, "MSL", exit.NoAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.Contains(c.client, "warm.db") {
				if _, err := s.sendWith("  url: " + s.url + "\n" + c.client); err != nil {
					t.Fatal(err)
				}
			}
			_, err := s.sendWith("  url: " + c.url + "\n" + c.client)
			if exit.Code(err) != c.code || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n")) {
				t.Errorf("exit code %d, want %d: %v", exit.Code(err), c.code, err)
			}
		})
	}
}

// webCertificate is a certificate for a server, signed by itself.
func webCertificate(t *testing.T, name string, until time.Time) (tls.Certificate, string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// TestSendUntrustedTLS has servers whose certificates are not accepted.
func TestSendUntrustedTLS(t *testing.T) {
	skipWithRace(t)
	s := newSite(t)
	later := time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		name     string
		until    time.Time
		roots    bool
		settings string
		code     int
		want     string
	}{
		"trusted":           {"localhost", later, true, "server-name: localhost", 0, ""},
		"unknown authority": {"localhost", later, false, "server-name: localhost", exit.Untrusted, "client.tls.roots"},
		"another name":      {"elsewhere.example", later, true, "server-name: localhost", exit.Untrusted, "client.tls.server-name"},
		"expired":           {"localhost", time.Now().Add(-time.Hour), true, "server-name: localhost", exit.Untrusted, "not valid by the clock here: check that clock"},
	} {
		t.Run(name, func(t *testing.T) {
			certificate, text := webCertificate(t, c.name, c.until)
			if !c.roots {
				_, text = webCertificate(t, c.name, c.until)
			}
			s.write("roots.pem", text)
			web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				answer, err := http.Post(s.url, "", r.Body)
				if err != nil {
					t.Error(err)
					return
				}
				defer answer.Body.Close()
				io.Copy(w, answer.Body)
			}))
			web.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
			web.StartTLS()
			defer web.Close()
			_, err := s.sendWith("  url: " + web.URL + "\n  psk: camera.psk\n  server-key: server.pem\n  tls: {roots: roots.pem, " + c.settings + "}\n")
			if exit.Code(err) != c.code || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("exit code %d, want %d: %v", exit.Code(err), c.code, err)
			}
		})
	}
}
