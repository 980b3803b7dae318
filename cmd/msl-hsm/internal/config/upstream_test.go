package config

import (
	"os"
	"path/filepath"
	"testing"
)

// TestUpstreamForms reads every form of server.upstream. Paths are relative to the file.
func TestUpstreamForms(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{
		"http://host/api":                                  "http://host/api",
		"[http://a/, 'unix:app.sock:/x']":                  "http://a/, unix:" + dir + "/app.sock:/x",
		"{url: 'unix:/run/app.sock'}":                      "unix:/run/app.sock",
		"{url: ['https://me:secret@host/', 'unix:@name']}": "https://me:xxxxx@host/, unix:@name",
		"":                           "",
		"''":                         "",
		"{url: ''}":                  "",
		"{method: PUT, timeout: 2s}": "",
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
