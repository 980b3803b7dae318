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
		"server: {limits: {idle: -1s}}\n":                                                "c.yaml:1:25: server.limits.idle is negative",
		"server:\n  push: {path: /push}\n":                                               "c.yaml:2:9: server.push needs both",
		"server:\n  peer: {path: /p, push: true}\n":                                      "c.yaml:2:26: server.peer.push is on",
		"server: {renew-after: 25h}\n":                                                   "c.yaml:1:23: server.renew-after is 25h0m0s, and server.lifetime 24h",
		"client: {attest: {every: 1ms}}\n":                                               "c.yaml:1:26: client.attest.every is 1ms: want at least 1s",
		"client: {attest: {every: -1h}}\n":                                               "c.yaml:1:26: client.attest.every is -1h0m0s: want at least 1s",
		"client: {attest: {every: 1h, url: 'ftp://a'}}\n":                                "c.yaml:1:35: client.attest.url: URL to attest at \"ftp://a\": want http://HOST:PORT/enroll",
		"client: {attest: {every: 1h, url: 'https://u:secret@a/'}}\n":                    "c.yaml:1:35: client.attest.url: URL to attest at \"https://u:xxxxx@a/\": a URL must not contain a name",
		"server: {enrollment: {on-change: revoke}}\n":                                    "c.yaml:1:34: server.enrollment.on-change is revoke, and without server.enrollment.pcr",
		"server: {lifetime: 876001h}\n":                                                  "c.yaml:1:20: server.lifetime is 876001h0m0s: want at most 876000h, which are 100 years",
		"server: {renew-expired: 2000000h}\n":                                            "c.yaml:1:25: server.renew-expired is 2000000h0m0s: want at most 876000h",
		"server: {user-lifetime: 2000000h}\n":                                            "c.yaml:1:25: server.user-lifetime is 2000000h0m0s: want at most 876000h",
		"server: {lifetime: 1m}\n":                                                       "c.yaml:1:20: server.renew-after is 1h0m0s, and server.lifetime 1m0s",
		"x: &x {random: odd}\nkeystore: *x\n":                                            `c.yaml:1:1: unknown field "x"`,
		"server: &s {listen: foo}\n":                                                     "c.yaml:1:21: server.listen",
		"client: {languages: ['-']}\n":                                                   "c.yaml:1:21: client.languages",
		"server: {stream: {path: /a}, peer: {path: /a}}\n":                               `c.yaml:1:25: server.stream.path is "/a", and so is server.peer.path`,
		"server: {limits: {timeout: 10s}, upstream: {url: 'http://a/', timeout: 20s}}\n": "c.yaml:1:72: server.upstream.timeout is 20s",
		"keystore:\n  \"\": 1\n":                                                         `c.yaml:2:3: unknown field "" in keystore`,
		"server: {custody: lost}\n":                                                      `c.yaml:1:19: server.custody is "lost": want sealed, imported or shared`,
		"client: {user-scheme: PIN}\n":                                                   `c.yaml:1:23: client.user-scheme is "PIN": want EMAIL_PASSWORD or USER_ID_TOKEN`,
		"server: {failures: {log: f, allow: all}}\n":                                     `c.yaml:1:36: server.failures.allow is "all": want registered or anyone`,
		"server: {failures: {log: f, path: f}}\n":                                        `c.yaml:1:35: server.failures.path is "f"`,
		"server: {failures: {keep: 3}}\n":                                                "c.yaml:1:20: server.failures has settings, and server.failures.log is not set",
		"server: {failures: {log: f, keep: -1}}\n":                                       "c.yaml:1:35: server.failures.keep is negative",
		"server: {enrollment: {unknown: refuse}}\n":                                      "c.yaml:1:22: server.enrollment has settings, and server.enrollment.state is not set",
		"server: {enrollment: {state: e, unknown: no}}\n":                                `c.yaml:1:42: server.enrollment.unknown is "no": want hold or refuse`,
		"server: {enrollment: {state: e, ek-kinds: [a]}}\n":                              `c.yaml:1:43: server.enrollment.ek-kinds: unknown EK "a": want one of rsa2048`,
		"server: {enrollment: {state: e, allow: [a]}}\n":                                 "c.yaml:1:40: server.enrollment.allow: enroll: an EK hash must be",
		"server: {enrollment: {state: e, path: e}}\n":                                    `c.yaml:1:39: server.enrollment.path is "e"`,
		"server: {tls: {min-version: 1.3}}\n":                                            "c.yaml:1:15: server.tls has settings, and no certificate",
		"server: {tls: {certificates: tls.crt}}\n":                                       "c.yaml:1:30: server.tls.certificates: must be a list of certificates",
		"server: {tls: {certificates: []}}\n":                                            "c.yaml:1:30: server.tls.certificates: must be a list of certificates",
		"client: {tls: {min-version: 7}}\n":                                              `c.yaml:1:29: client.tls.min-version is "7": want 1.2 or 1.3`,
		"server: {upstream: {proxy: [a]}}\n":                                             "c.yaml:1:28: server.upstream.proxy: want http://HOST:PORT of a proxy",
		"server: {upstream: {content-type: \"a\\nb\"}}\n":                                "c.yaml:1:35: server.upstream.content-type has the control character U+000A: leave it out",
		"server: {upstream: {check: {path: up}}}\n":                                      `c.yaml:1:35: server.upstream.check.path is "up"`,
		"server: {upstream: {check: {path: '/a b'}}}\n":                                  `c.yaml:1:35: server.upstream.check.path is "/a b": want a path, such as /healthz`,
		"server: {upstream: {method: CONNECT}}\n":                                        `c.yaml:1:29: server.upstream.method: "CONNECT": want the name of an HTTP method, other than CONNECT and TRACE`,
		"server: {upstream: {method: connect}}\n":                                        `c.yaml:1:29: server.upstream.method: "connect": want the name of an HTTP method, other than CONNECT and TRACE`,
		"server: {http: {paths: [/], methods: [trace]}}\n":                               `c.yaml:1:39: server.http.methods: "trace": want the name of an HTTP method, other than CONNECT and TRACE`,
		"server: {upstream: {method: post}}\n":                                           `c.yaml:1:29: server.upstream.method: "post": names of HTTP methods are in capital letters: want POST`,
		"server: {http: {paths: [/], methods: [GET, put]}}\n":                            `c.yaml:1:44: server.http.methods: "put": names of HTTP methods are in capital letters: want PUT`,
		"server: {upstream: 'http://host:65536/'}\n":                                     `c.yaml:1:20: server.upstream: "http://host:65536/": want`,
		"server: {upstream: {proxy: 'http://host:0'}}\n":                                 "c.yaml:1:28: server.upstream.proxy: want http://HOST:PORT of a proxy",
		"client: {url: 'http://a:70000/'}\n":                                             `c.yaml:1:15: client.url: URL of the server "http://a:70000/": want http://`,
		"client: {failures: {url: 'http://a:70000/'}}\n":                                 `c.yaml:1:26: client.failures.url "http://a:70000/": want http://`,
		"server: {upstream: {url: 'http://a/', tls: {roots: r.pem}}}\n":                  `c.yaml:1:44: server.upstream.tls has settings, and no URL of the service begins with https`,
		"server: {upstream: {url: 'https://a/', tls: {http2: true}}}\n":                  `c.yaml:1:53: server.upstream.tls.http2 is on: requests to the service are HTTP/1.1`,
		"server: {languages: ['']}\n":                                                    "c.yaml:1:21: server.languages",
		"server: {compression: [GZIP, ~]}\n":                                             "c.yaml:1:30: server.compression has an entry without a value",
		"server: {x509-intermediates: a}\n":                                              "c.yaml:1:30: server.x509-intermediates is set and server.x509-roots is not",
		"server: {x509-require-crl: true}\n":                                             "c.yaml:1:28: server.x509-require-crl is set and server.x509-roots is not",
		"server: {identity: ''}\n":                                                       "c.yaml:1:20: server.identity is empty",
		"server: {admin: {listen: '[::1]:1', token: t}}\n":                               "c.yaml:1:44: server.admin.token: not the secret itself, but its source: want file:PATH",
		"keystore: {session-keys: disk}\n":                                               `c.yaml:1:26: keystore.session-keys is "disk": want token or memory`,
		"keystore: {session-keys: memory, uri: 'tpm:?state=s'}\n":                        "c.yaml:1:26: keystore.session-keys is memory, but is for PKCS #11 tokens: leave it out for the key store tpm:?state=",
		"keystore: {session-keys: memory, uri: 'soft:k'}\n":                              "c.yaml:1:26: keystore.session-keys is memory, but is for PKCS #11 tokens",
		"keystore: {session-keys: memory, trusted-wrapping: true}\n":                     "c.yaml:1:52: keystore.trusted-wrapping is on, but with keystore.session-keys: memory no key wraps another",
		"keystore: {session-keys: memory}\nclient: {custody: sealed}\n":                  "c.yaml:1:26: keystore.session-keys is memory, and client.custody is sealed: set client.custody to imported",
		"keystore: {session-keys: memory}\nserver: {state: s.db}\n":                      "c.yaml:1:26: keystore.session-keys is memory, and server.custody is sealed: set server.custody to imported",
		"keystore: {prefix: ''}\n":                                                       "c.yaml:1:20: keystore.prefix is empty",
		"keystore: {pin: 1234}\n":                                                        "c.yaml:1:17: keystore.pin: not the secret itself, but its source: want file:PATH",
		"keystore: {uri: 'p11:a'}\n":                                                     "c.yaml:1:17: keystore.uri names no key store: want pkcs11:token=NAME",
		"client: {agent: {users: {a@b.example: x}}}\n":                                   "c.yaml:1:25: client.agent.users.a@b.example: not the secret itself",
		"client: {agent: {listen: ':80'}}\n":                                             `c.yaml:1:26: client.agent.listen is ":80": want a loopback address`,
		"client: {agent: {requests: -1}}\n":                                              "c.yaml:1:28: client.agent.requests is negative",
		"client: {url: 'ftp://a'}\n":                                                     `c.yaml:1:15: client.url: URL of the server "ftp://a": want http://`,
		"client: {failures: {url: a}}\n":                                                 `c.yaml:1:26: client.failures.url "a": want http://`,
		"client: {failures: {report: [all]}}\n":                                          `c.yaml:1:29: client.failures.report: unknown name "all": want some of device`,
		"client: {attest: {pcr: 1.5}}\n":                                                 "c.yaml:1:24: client.attest.pcr: \"1.5\": want the number of a PCR",
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
