package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// TestCosts makes and opens key files as users do, who have no cheap ones: neither by
// a setting, nor because a test made the file.
func TestCosts(t *testing.T) {
	skipWithRace(t)
	t.Chdir(t.TempDir())
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("pin", "pass\n")
	const store = "keystore:\n  uri: soft:made.keys\n  pin: file:pin\n"
	with := func(name, settings string) string {
		write(name, store+settings)
		return name
	}
	var out, said bytes.Buffer
	create := []string{"key", "create", "one", "--algorithm", "aes128-cbc", "--keystore", "soft:cheap.keys", "--pin", "file:pin"}
	if code := runCheaply(create, strings.NewReader(""), &out, &said); code != 0 {
		t.Fatal(said.String())
	}
	usual := with("usual.yaml", "")
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"key list --keystore soft:cheap.keys --pin file:pin", exit.Keystore, "cheap.keys is a file for tests, make keys in another one: Argon2id with time 1, memory 8 KiB and 1 threads is too little: want at least 7168 KiB"},
		{"key list --config " + with("weak.yaml", "server: {argon2: {time: 1, memory: 8, threads: 1}}"), exit.Usage, "server.argon2: Argon2id with time 1, memory 8 KiB and 1 threads is too little"},
		{"key list --config " + with("large.yaml", "server: {argon2: {memory: 2000000}}"), exit.Usage, "server.argon2: Argon2id with time 3, memory 2000000 KiB and 4 threads is not possible: want at most 1048576 KiB"},
		{"key list --config " + with("many.yaml", "server: {argon2: {threads: 300}}"), exit.Usage, "many.yaml:4:28: server.argon2.threads must be a whole number from 0 to 255"},
		{"key list --config " + with("minus.yaml", "server: {argon2: {time: -1}}"), exit.Usage, "minus.yaml:4:25: server.argon2.time must be a whole number from 0 to 4294967295"},
		{"key list --config " + with("half.yaml", "server: {argon2: {time: 1.5}}"), exit.Usage, "half.yaml:4:25: server.argon2.time must be a whole number"},
		{"key create one --algorithm aes128-cbc --config " + usual, 0, `"time":3,"memory":65536,"threads":4`},
		{"key create two --algorithm aes128-cbc --config " + with("other.yaml", "  argon2: {time: 5, memory: 7168, threads: 1}"), 0, `"time":5,"memory":7168,"threads":1`},
		{"key list --config " + usual, 0, `"memory":7168`},
		{"key create three --algorithm aes128-cbc --config " + usual, 0, `"memory":7168`},
		{"key create four --algorithm aes128-cbc --config " + with("weaker.yaml", "  argon2: {time: 4, memory: 7168}"), exit.Usage, "keystore.argon2: Argon2id with time 4, memory 7168 KiB and 4 threads is too little"},
	} {
		said.Reset()
		code := Run(strings.Fields(c.args), strings.NewReader(""), &out, &said)
		text := said.String()
		if c.code == 0 {
			header, err := os.ReadFile("made.keys")
			if err != nil {
				t.Fatal(err)
			}
			text += string(header)
		} else if strings.Count(text, "\n") != 1 {
			t.Errorf("%s: not one line: %s", c.args, text)
		}
		if code != c.code || !strings.Contains(text, c.want) {
			t.Errorf("%s: exit code %d, %q, want %d, %q", c.args, code, text, c.code, c.want)
		}
	}
}
