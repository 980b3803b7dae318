package cli

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
)

// clientSettings are settings of a client beside its URL and the server's key, with what config
// check says about them.
var clientSettings = []struct {
	settings, want string
	code           int // of config check
}{
	{"identity: q", `^no mistake in client.yaml\n$`, 0},
	{"", "need --psk-file FILE, or --identity NAME", 0},
	{"server-key: '', identity: q", "need --server-key FILE", 0},
	{"identity: q, entity-scheme: PSK", "need --psk-file FILE, since client.entity-scheme is PSK", 0},
	{"identity: q, entity-scheme: RSA", "need --key NAME", 0},
	{"key: k", "need --identity NAME, since client.identity is not set; and --keystore URI", 0},
	{"attest: {every: 1h}", "need --keystore tpm:[^;]*$", 0},
	{"identity: q, user: ada", "agent also needs --password-source file:PATH", 0},
	{"identity: q, key: k", "need --keystore URI", 0},
	{"identity: q, state: q.db, anti-rollback: true", "need --keystore tpm:", 0},
	{"identity: q, key-exchanges: [TPM_IMPORT]", "need --keystore tpm:", 0},
	{"identity: q, key-exchanges: [SYMMETRIC_WRAPPED]", "need --psk-file FILE", 0},
	{"identity: q, custody: imported, key-exchanges: [JWE_LADDER]", "need --psk-file FILE", 0},
	{"psk: q.psk, failures: {url: 'http://127.0.0.1:9/'}", "need --identity NAME", 0},
	{"identity: q, entity-scheme: X509, key: k", "X509, which needs client.certificate and client.key", 2},
	{"certificate: q.pem", "client.key is not", 2},
	{"psk: q.psk, entity-scheme: PSK_PROFILE", "needs client.profile", 2},
	{"identity: q, entity-scheme: NONE_SUFFIXED", "needs client.suffix", 2},
	{"identity: q, entity-scheme: MT_PROTECTED", "set client.earlier-state", 2},
	{"identity: q, user: ada, user-scheme: USER_ID_TOKEN", "set client.earlier-state", 2},
	{"identity: q, server-intermediates: between.pem", "client.server-roots is not", 2},
	{"identity: q, peer: true", "client.peer is on, and client.url", 2},
	{"identity: q, anti-rollback: true", "set client.state", 2},
	{"identity: q, key-exchanges: [JWK_RSA]", "custody must be imported or shared for it, and client.custody is sealed unless", 2},
	{"identity: q, agent: {users: {ada: prompt}}", "ada that needs no terminal", 2},
	{"identity: q, custody: sealed, key-exchanges: [TPM_IMPORT]", "need --keystore tpm:", 0}, // a TPM's keys may stay sealed
}

// TestConfigCheckClient checks that config check tells of client settings that send or agent
// refuses: as a mistake, or as what flags have to add.
func TestConfigCheckClient(t *testing.T) {
	skipWithRace(t)
	t.Chdir(t.TempDir())
	if err := os.WriteFile("server.pem", []byte(publicPEM(t, true)), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range clientSettings {
		lines := "client: {url: 'http://127.0.0.1:9/', server-key: server.pem, " + c.settings + "}\n"
		if strings.HasPrefix(c.settings, "server-key:") {
			lines = strings.Replace(lines, "server-key: server.pem, ", "", 1)
		}
		if err := os.WriteFile("client.yaml", []byte(lines), 0o600); err != nil {
			t.Fatal(err)
		}
		var said bytes.Buffer
		code := runCheaply([]string{"config", "check", "client.yaml"}, nil, &said, &said)
		if code != c.code || !regexp.MustCompile(c.want).MatchString(said.String()) || code == 2 && !strings.Contains(said.String(), "client.yaml:1:") {
			t.Errorf("%s: exit code %d, want %d and %q: %s", c.settings, code, c.code, c.want, said.String())
		}
		sound, refused := strings.HasPrefix(c.want, "^no mistake"), false
		for _, verb := range []string{"send", "agent"} {
			if verb == "send" || !sound { // an agent would run
				refused = refused || runCheaply([]string{verb, "--config", "client.yaml"}, strings.NewReader(""), &said, &said) == 2
			}
		}
		if sound == refused {
			t.Errorf("%s: refused is %v: %s", c.settings, refused, said.String())
		}
	}
}
