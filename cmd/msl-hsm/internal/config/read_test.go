package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLocated has settings of the right kind that cannot work: the error names their place.
func TestLocated(t *testing.T) {
	for text, want := range map[string]string{
		"server:\n  listen: foo\n":                                                       `c.yaml:2:11: server.listen is "foo": want HOST:PORT`,
		"server:\n  peer:\n    listen: foo\n":                                            `c.yaml:3:13: server.peer.listen is "foo"`,
		"server: {limits: {idle: -1s}}\n":                                                "c.yaml:1:25: server.limits.idle is less than nothing",
		"server:\n  push: {path: /push}\n":                                               "c.yaml:2:9: server.push needs both",
		"server:\n  peer: {path: /p, push: true}\n":                                      "c.yaml:2:26: server.peer.push is on",
		"server: {renew-after: 25h}\n":                                                   "c.yaml:1:23: server.renew-after is 25h0m0s, and server.lifetime 24h",
		"client: {attest: {every: 1ms}}\n":                                               "c.yaml:1:26: client.attest.every is 1ms: want at least 1s",
		"client: {attest: {every: -1h}}\n":                                               "c.yaml:1:26: client.attest.every is -1h0m0s: want at least 1s",
		"client: {attest: {every: 1h, url: 'ftp://a'}}\n":                                "c.yaml:1:35: client.attest.url: URL to attest at \"ftp://a\": want http://HOST:PORT/enroll",
		"client: {attest: {every: 1h, url: 'https://u:secret@a/'}}\n":                    "c.yaml:1:35: client.attest.url: URL to attest at \"https://u:xxxxx@a/\": a URL must hold no name",
		"server: {enrollment: {on-change: revoke}}\n":                                    "c.yaml:1:34: server.enrollment.on-change is revoke, and without server.enrollment.pcr",
		"server: {lifetime: 1m}\n":                                                       "c.yaml:1:20: server.renew-after is 1h0m0s, and server.lifetime 1m0s",
		"x: &x {random: odd}\nkeystore: *x\n":                                            `c.yaml:1:1: unknown field "x"`,
		"server: &s {listen: foo}\n":                                                     "c.yaml:1:21: server.listen",
		"client: {languages: ['-']}\n":                                                   "c.yaml:1:21: client.languages",
		"server: {stream: {path: /a}, peer: {path: /a}}\n":                               `c.yaml:1:25: server.stream.path is "/a", and so is server.peer.path`,
		"server: {limits: {timeout: 10s}, upstream: {url: 'http://a/', timeout: 20s}}\n": "c.yaml:1:72: server.upstream.timeout is 20s",
	} {
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := Default().Read(path)
		if err == nil || !strings.HasPrefix(strings.TrimPrefix(err.Error(), filepath.Dir(path)+"/"), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}
