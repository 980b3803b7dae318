package config

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWatch(t *testing.T) {
	for text, want := range map[string]Watch{"off": 0, "5s": Watch(5 * time.Second), "1m": Watch(time.Minute), "1s": Watch(time.Second)} {
		c := Default()
		if err := DecodeYAML("a.yaml", []byte("server: {watch: "+text+"}"), c); err != nil || c.Server.Watch != want {
			t.Errorf("%s: %v, %v", text, time.Duration(c.Server.Watch), err)
		}
	}
	for _, text := range []string{"0", "0s", "1ms", "-5s", "on", "[5s]", "5"} {
		if err := DecodeYAML("a.yaml", []byte("server:\n  watch: "+text), Default()); err == nil || !strings.Contains(err.Error(), "a.yaml:2:10: ") || !strings.Contains(err.Error(), "want off, or a time") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestFiles wants the files of each setting that names one, and no secret source that is not a file.
func TestFiles(t *testing.T) {
	c := Default()
	text := `
keystore: {uri: 'soft:keys', pin: 'file:pin', owner-password: 'file:owner'}
server:
  x509-roots: roots.pem
  x509-crl: crl.pem
  tls: {certificates: [{certificate: a.crt, key: a, ocsp: a.ocsp}, {certificate: b.crt, key: b}], client-ca: clients.pem}
  upstream: {url: 'https://a.example/', headers: {Authorization: 'file:service.token', X-Other: 'credential:x'}, tls: {roots: up.pem}}
  enrollment: {ek-roots: [makers, extra.pem]}
  admin: {listen: '127.0.0.1:1', token: 'file:token'}
client: {tls: {roots: mine.pem}}
`
	if err := DecodeYAML("a.yaml", []byte(text), c); err != nil {
		t.Fatal(err)
	}
	for _, got := range []struct {
		name       string
		files, has []string
	}{
		{"server", c.Files(), []string{"a.crt", "b.crt", "clients.pem", "keys", "pin", "roots.pem", "service.token", "up.pem"}},
		{"start", c.StartFiles(), []string{"extra.pem", "token"}},
		{"agent", c.AgentFiles(), []string{"mine.pem", "pin"}},
	} {
		files := slices.DeleteFunc(got.files, func(path string) bool { return path == "" })
		slices.Sort(files)
		if !slices.Equal(files, got.has) {
			t.Errorf("%s: %q, want %q", got.name, files, got.has)
		}
	}
}
