package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// TestLongInputs has arguments and files of 100 KB, as a variable gone wrong in a script makes
// them, wherever an error repeats them: it is one line that can be read.
func TestLongInputs(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	skipWithRace(t)
	t.Chdir(t.TempDir())
	t.Setenv("MSL_HSM_CONFIG", "")
	long := strings.Repeat("long ", 20_000)
	for name, text := range map[string]string{
		"server.yaml": "keystore: {uri: 'soft:server.keys', pin: 'file:pin'}\nserver: {state: server.db}\n",
		"field.yaml":  "server: {'" + long + "': 1}\n", "value.yaml": "server: {custody: '" + long + "'}\n",
		"scheme.yaml": "server: {user-schemes: ['" + long + "']}\n", "pin": "pass",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{long}, {"key", long}, {"help", long}, {"--" + long}, {"key", "list", "--" + long}, {"key", "list", "--json=" + long}, {"key", "list", long},
		{"key", "list", "--config", long}, {"key", "list", "--keystore", long}, {"key", "list", "--keystore", "soft:" + long}, {"key", "list", "--keystore", "pkcs11:token=" + long},
		{"key", "list", "--keystore", "tpm:?" + long}, {"key", "list", "--keystore", "soft:x", "--pin", long}, {"key", "list", "--keystore", "soft:x", "--pin", "file:" + long}, {"key", "list", "--softhsm", long},
		{"key", "create", "k", "--algorithm", long, "--config", "server.yaml"}, {"key", "create", "--set", long, "--config", "server.yaml"}, {"key", "destroy", "k", "--version", long},
		{"key", "list", "--config", "field.yaml"}, {"key", "list", "--config", "value.yaml"}, {"config", "check", "scheme.yaml"}, {"config", "check", long},
		{"send", long}, {"send", "http://127.0.0.1:1/" + strings.ReplaceAll(long, " ", ""), "--identity", "x"}, {"send", "http://" + strings.ReplaceAll(long, " ", "") + "/", "--identity", "x"},
		{"send", "http://127.0.0.1:1/", "--identity", "x", "--entity-scheme", long}, {"send", "http://127.0.0.1:1/", "--timeout", long}, {"send", "http://127.0.0.1:1/", "--psk-file", long}, {"send", "http://127.0.0.1:1/", "--file", long},
		{"serve", "--config", "server.yaml", "--listen", long}, {"serve", "--config", "server.yaml", "--upstream", long}, {"serve", "--config", "server.yaml", "--admin", long}, {"serve", "--log-format", long},
		{"inspect", long}, {"errors", long}, {"alerts", long}, {"audit", "verify", long, "--key", long}, {"audit", "verify", "x", "--contains", long},
		{"session", "list", "--state", long}, {"session", "forget", "--agent", long}, {"session", "forget", "--agent", "unix:" + long}, {"session", "logout", long, "--agent", "unix:/nowhere"},
		{"entity", "list", "--state", long}, {"state", "check", "--state", long}, {"ceremony", long}, {"token", "init", "--softhsm", long}, {"completion", long}, {"man", long, long},
	} {
		var out, said bytes.Buffer
		code := runCheaply(args, strings.NewReader(""), &out, &said)
		if text := said.String(); code == 0 || strings.Count(text, "\n") != 1 || len(text) > 2200 {
			t.Errorf("%.40q: exit code %d, %d bytes: %.200s", args, code, len(text), text)
		}
	}
}
