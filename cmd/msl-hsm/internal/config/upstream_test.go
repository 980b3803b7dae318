package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUpstreamForms reads every form of server.upstream. Paths are relative to the file.
func TestUpstreamForms(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{
		"http://host/api":                        "http://host/api",
		"[http://a/, 'unix:app.sock:/x']":        "http://a/, unix:" + dir + "/app.sock:/x",
		"{url: 'unix:/run/app.sock'}":            "unix:/run/app.sock",
		"{url: ['https://host/', 'unix:@name']}": "https://host/, unix:@name",
		"":                                       "",
		"''":                                     "",
		"{url: ''}":                              "",
		"{method: PUT, timeout: 2s}":             "",
	} {
		path := filepath.Join(dir, "c.yaml")
		if err := os.WriteFile(path, []byte("server:\n  upstream: "+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c := Default()
		if err := c.Read(path); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if got := c.Server.Upstream.String(); got != want || c.Server.Upstream.IsZero() != (want == "") {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// TestUpstreamPaths makes the paths of a section absolute, and takes older names.
func TestUpstreamPaths(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "c.yaml")
	text := "server: {upstream-method: PATCH, upstream-timeout: 7s, upstream: {headers: {a: 'file:h'}, tls: {roots: r, certificate: c, key: k}}}"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := Default()
	if err := c.Read(path); err != nil {
		t.Fatal(err)
	}
	u := &c.Server.Upstream
	if u.Headers["A"] != "file:"+dir+"/h" || u.TLS.Roots != dir+"/r" || u.TLS.Certificate != dir+"/c" || u.TLS.Key != "k" {
		t.Errorf("%+v", u)
	}
	if c.Server.UpstreamVerb() != "PATCH" || c.Server.UpstreamTime().Seconds() != 7 {
		t.Errorf("%s %v", c.Server.UpstreamVerb(), c.Server.UpstreamTime())
	}
	if err := u.URL.Set([]string{"http://a/", "", "http://b/"}); err != nil || u.String() != "http://a/, http://b/" {
		t.Errorf("%v, %v", u, err)
	}
}

// TestUpstreamPasswords refuses URLs with passwords, which the file must not have.
func TestUpstreamPasswords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	for _, text := range []string{"https://me:secret@host/", "[https://me:secret@host/]", "{proxy: 'http://me:secret@proxy:1'}"} {
		if err := os.WriteFile(path, []byte("server:\n  upstream: "+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := Default().Read(path)
		if err == nil || !strings.Contains(err.Error(), "must not contain a name and password") || strings.Contains(err.Error(), "secret@") || !strings.Contains(err.Error(), "c.yaml:2:") {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := new(TargetList).Set([]string{"http://me:secret@host/"}); err == nil || strings.Contains(err.Error(), "secret@") {
		t.Error(err)
	}
}
