package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOdd has configurations with which a server would not start, would ignore a setting, or
// would write one file over another: the file is refused when it is read.
func TestOdd(t *testing.T) {
	for text, want := range map[string]string{
		// what YAML permits
		"server: {user-rules: [{entity: a, entity: b, schemes: []}]}\n":                       `c.yaml:1:35: field "server.user-rules.entity" is listed twice`,
		"server: {model-groups: {a: b, a: c}}\n":                                              `c.yaml:1:31: field "server.model-groups.a" is listed twice`,
		"server: {tls: {certificates: [{certificate: a, key: b, key: c}]}}\n":                 `c.yaml:1:56: field "server.tls.certificates.key" is listed twice`,
		"server: &a {tls: *a}\n":                                                              "c.yaml:1:18: *a stands for a value that contains it",
		"server: {identity: &X-A Connection, http: {paths: [/], response-headers: [*X-A]}}\n": `c.yaml:1:20: server.http.response-headers: `,
		"server: {identity: &n ~, access-log: *n}\n":                                          "c.yaml:1:20: server.identity has no value",
		"server: {identity: \"a\\nb\"}\n":                                                     "c.yaml:1:20: server.identity has the control character U+000A: leave it out",
		"server: {identity: \"a\\u202eb\"}\n":                                                 "c.yaml:1:20: server.identity has the control character U+202E",
		"server: {access-log: \"a\\u2028b\"}\n":                                               "c.yaml:1:22: server.access-log has the control character U+2028",
		"server: {model-groups: {\"a\\x1b\": g}}\n":                                           "c.yaml:1:25: server.model-groups.a\x1b has the control character U+001B",
		"server: {user-rules: [{entity: \"a\\x7f\"}]}\n":                                      "c.yaml:1:32: server.user-rules.entity has the control character U+007F",
		"keystore: {tokens: [a, \"b\\0\"]}\n":                                                 "c.yaml:1:24: keystore.tokens has the control character U+0000",
		"server:\n  identity: |\n    a\n    b\n":                                              "c.yaml:2:13: server.identity has the control character U+000A",
		"server: {identity: ok}\n\"ser\\tver\": {}\n":                                         "c.yaml:2:1: ",
		// numbers
		"server: {shutdown: 2562047h}\n":                  "c.yaml:1:20: server.shutdown is 2562047h0m0s: want at most 876000h, which are 100 years",
		"server: {watch: 2562047h}\n":                     "c.yaml:1:17: server.watch is 2562047h0m0s: want at most 876000h",
		"server: {lifetime: 1ns, renew-after: 1ns}\n":     "c.yaml:1:20: server.lifetime is 1ns: want 1s or more",
		"server: {limits: {header: 9223372036854775807}}": "c.yaml:1:27: server.limits.header is 9223372036854775807: want at most 2147483647",
		"client: {limits: {answer: 9223372036854775807}}": "c.yaml:1:27: client.limits.answer is 9223372036854775807: want at most 1125899906842624",
		"keystore: {sessions: 2147483648}":                "c.yaml:1:22: keystore.sessions is 2147483648: want at most 2147483647",
		"server: {limits: {sessions: 010}}":               "c.yaml:1:29: server.limits.sessions is 010, which not all programs read as the same number: write it in decimal digits, without leading zeros",
		"server: {limits: {sessions: 1_000}}":             "c.yaml:1:29: server.limits.sessions is 1_000, which not all programs",
		"server: {limits: {sessions: !!int '010'}}":       "c.yaml:1:29: server.limits.sessions is 010, which",
		"server: {enrollment: {waiting: 0o10}}":           "c.yaml:1:32: server.enrollment.waiting is 0o10, which",
		"server: {enrollment: {rate: 010}}":               "c.yaml:1:29: server.enrollment.rate is 010, which",
		"keystore: {sessions: 010}":                       "c.yaml:1:22: keystore.sessions is 010, which",
		"client: {attest: {pcr: [0, 010]}}":               "c.yaml:1:28: client.attest.pcr: 010, which",
		"server: {enrollment: {pcr: {010: aa}}}":          "c.yaml:1:29: server.enrollment.pcr: 010, which",
		"server: {audit: {file: a, records: -1}}\n":       "c.yaml:1:36: server.audit.records is negative",
		// addresses and paths
		"server: {listen: '127.0.0.1:'}\n":                                           `c.yaml:1:18: server.listen is "127.0.0.1:": want HOST:PORT`,
		"server: {stream: {listen: ' 127.0.0.1:1'}}\n":                               `c.yaml:1:27: server.stream.listen is " 127.0.0.1:1": want HOST:PORT`,
		"server: {stream: {listen: '127.0.0.1:8080'}}\n":                             `c.yaml:1:27: server.listen is "127.0.0.1:8080", and so is server.stream.listen`,
		"server: {peer: {listen: 'a:1'}, push: {listen: 'a:1', from: 'unix:s'}}\n":   `c.yaml:1:25: server.peer.listen is "a:1", and so is server.push.listen`,
		"server: {admin: {listen: '127.0.0.1:8080', token: 'file:t'}}\n":             `c.yaml:1:26: server.listen is "127.0.0.1:8080", and so is server.admin.listen`,
		"server: {push: {path: /p, from: x}}\n":                                      `c.yaml:1:33: server.push.from is "x": want a loopback address`,
		"server: {admin: {health: '/a b{'}}\n":                                       `c.yaml:1:26: server.admin.health is "/a b{": want a path such as /healthz`,
		"server: {admin: {health: '/a/../b'}}\n":                                     `c.yaml:1:26: server.admin.health is "/a/../b": want a path`,
		"server: {admin: {health: /failures}, failures: {log: f}}\n":                 `c.yaml:1:26: server.admin.health is "/failures", and so is server.failures.path`,
		"server: {enrollment: {state: e, path: //e}}\n":                              `c.yaml:1:39: server.enrollment.path is "//e"`,
		"server: {enrollment: {state: e, path: /x}, failures: {log: f, path: /x}}\n": `c.yaml:1:39: server.enrollment.path is "/x", and so is server.failures.path`,
		"server: {failures: {log: f, path: '/x?'}}\n":                                `c.yaml:1:35: server.failures.path is "/x?"`,
		"server: {stream: {path: //}}\n":                                             `c.yaml:1:25: server.stream.path is "//"`,
		// files
		"server: {state: s.db, access-log: s.db}\n":                          "c.yaml:1:35: server.state.file is DIR/s.db\", and so is server.access-log: give it another one",
		"server: {state: s.db, enrollment: {state: ./s.db}}\n":               "c.yaml:1:43: server.state.file is DIR/s.db\", and so is server.enrollment.state",
		"server: {audit: {file: a}, failures: {log: sub/../a}}\n":            "c.yaml:1:44: server.failures.log is DIR/a\", and so is server.audit.file",
		"server: {access-log: c.yaml}\n":                                     "c.yaml:1:22: server.access-log is DIR/c.yaml\", which another setting reads: name another file",
		"keystore: {pin: 'file:pin'}\nserver: {audit: {file: pin}}\n":        "c.yaml:2:24: server.audit.file is DIR/pin\", which another setting reads: name another file",
		"keystore: {uri: 'soft:k'}\nserver: {state: k}\n":                    "c.yaml:2:17: server.state.file is DIR/k\", which another setting reads: name another file",
		"client: {state: c.db, failures: {url: 'http://a/', spool: c.db}}\n": "c.yaml:1:17: client.state is DIR/c.db\", and so is client.failures.spool",
		// what contradicts or lacks something else
		"server: {key: a, psk-keys: b}\n":                                  "c.yaml:1:28: server.psk-keys is set, and server.key or server.certificate too",
		"server: {entity-schemes: [X509]}\n":                               "c.yaml:1:26: server.entity-schemes names X509, which needs server.x509-roots",
		"server: {entity-schemes: [PROVISIONED]}\n":                        "c.yaml:1:26: server.entity-schemes names PROVISIONED, which needs server.provisioned",
		"server: {x509-crl: a}\n":                                          "c.yaml:1:20: server.x509-crl is set and server.x509-roots is not",
		"keystore: {isolate: true, uri: 'soft:k'}\n":                       "c.yaml:1:21: keystore.isolate is true, but is for PKCS #11 modules only",
		"server: {enrollment: {state: e, device-roots: [a, makers]}}\n":    "c.yaml:1:47: server.enrollment.device-roots: makers are those of TPMs",
		"server: {upstream: {url: 'https://a/', tls: {certificate: c}}}\n": "c.yaml:1:45: server.upstream.tls has a certificate or a key: give both, or none",
		"client: {tls: {key: k}}\n":                                        "c.yaml:1:15: client.tls has a certificate or a key: give both, or none",
		"client: {agent: {requests: 0}}\n":                                 "c.yaml:1:28: client.agent.requests is 0: want at least 1",
		"client: {anti-rollback: yes please}\n":                            `c.yaml:1:25: client.anti-rollback is "yes please": want true, false or an NV index, such as 0x1`,
		// key exchanges
		"server: {key-exchanges: [SYMMETRIC_WRAPPED, JWE_RSA]}\n":                                   "c.yaml:1:25: server.key-exchanges: JWE_RSA: session keys travel in the text of a JSON Web Key; custody must be imported or shared for it",
		"server: {key-exchanges: [JWK_LADDER], custody: sealed}\n":                                  "c.yaml:1:25: server.key-exchanges: JWK_LADDER: session keys and the next wrapping key travel",
		"server: {key-exchanges: [DIFFIE_HELLMAN]}\n":                                               "c.yaml:1:25: server.key-exchanges: DIFFIE_HELLMAN: session keys are a hash",
		"server: {key-exchanges: [TPM_IMPORT], custody: imported}\n":                                "c.yaml:1:25: server.key-exchanges: TPM_IMPORT: it needs the attestation keys of devices: set server.enrollment",
		"server: {key-exchanges: [TPM_IMPORT], enrollment: {state: e}}\n":                           "c.yaml:1:25: server.key-exchanges: TPM_IMPORT: a TPM imports what was encrypted",
		"server: {peer: {path: /p, key-exchanges: [SYMMETRIC_WRAPPED]}}\n":                          "c.yaml:1:42: server.peer.key-exchanges: SYMMETRIC_WRAPPED: it needs server.psk-keys",
		"server: {peer: {path: /p, key-exchanges: [JWE_LADDER]}, psk-keys: k, custody: imported}\n": "c.yaml:1:42: server.peer.key-exchanges: JWE_LADDER: peers do not use it: want some of SYMMETRIC_WRAPPED, ASYMMETRIC_WRAPPED, JWE_RSA, JWEJS_RSA, JWK_RSA, DIFFIE_HELLMAN, JWK_RSAES",
		"server: {peer: {listen: 'a:1', key-exchanges: [JWK_RSA]}}\n":                               "c.yaml:1:47: server.peer.key-exchanges: JWK_RSA: session keys travel",
		"client: {custody: sealed, key-exchanges: [JWK_RSA]}\n":                                     "c.yaml:1:42: client.key-exchanges: JWK_RSA: session keys travel",
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "c.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got := "nothing"
		if err := Default().Read(path); err != nil {
			got = strings.ReplaceAll(strings.TrimPrefix(err.Error(), dir+"/"), `"`+dir, "DIR")
		}
		if !strings.HasPrefix(got, want) {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// TestPlain reads aliases wherever a value may be.
func TestPlain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	text := "server: {identity: &n 10.0.0.0/8, trusted-proxies: [*n], access-log: /dev/stdout, failures: {log: /dev/stdout}, tls: &t {min-version: 1.2, certificates: [{certificate: a, key: b}]}, upstream: {url: 'https://a/', tls: {min-version: 1.3}}}\nclient: {tls: {roots: *n}}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := Default()
	if err := c.Read(path); err != nil {
		t.Fatal(err)
	}
	if n := c.Server.TrustedProxies; len(n) != 1 || n[0].String() != "10.0.0.0/8" || c.Client.TLS.Roots == "" {
		t.Errorf("proxies %v, roots %q", n, c.Client.TLS.Roots)
	}
}
