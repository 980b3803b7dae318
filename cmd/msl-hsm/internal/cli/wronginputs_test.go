package cli

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A fullDisk takes nothing.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// TestOutputLost wants no verb to succeed whose output is lost.
func TestOutputLost(t *testing.T) {
	for _, args := range [][]string{{"help"}, {"key", "--help"}, {"send", "--help"}, {"version"}, {"errors", "4007"}, {"help", "exit-codes"}} {
		var said bytes.Buffer
		if code := runCheaply(args, strings.NewReader(""), fullDisk{}, &said); code != 1 || !strings.Contains(said.String(), "no space left") || strings.Contains(said.String(), "nothing was changed") {
			t.Errorf("%v: exit code %d: %s", args, code, said.String())
		}
	}
}

// packagePrefix is the name of a Go package before a message, which says nothing to a user.
var packagePrefix = regexp.MustCompile(`(?:^|: |; |\()(?:msl|mslhttp|keystore|wire|hsm|tpm|soft|softhsm|entityauth|keyx|state|kv|secret|failurelog|enroll|identity|fleet|mixed|tlsalert|encoding/\w+|x509|asn1|yaml|json|strconv\.\w+|net/\w+): `)

// A wrongInput is a command line that cannot work, and what is said about it.
type wrongInput struct {
	args string
	code int
	want string
}

// wrongFiles are the files of the command lines below.
var wrongFiles = map[string]string{
	"half.yaml":     "client: {limits: {chunk: 1.5}}\n",
	"exp.yaml":      "keystore: {sessions: 4e0}\n",
	"two.yaml":      "server: {identity: a}\n---\nserver: {identity: b}\n",
	"tab.yaml":      "server:\n\tidentity: a\n",
	"open.yaml":     "server: {identity: a\n",
	"quote.yaml":    "server:\n  identity: 'a\nclient: {}\n",
	"alias.yaml":    "server:\n  identity: *nobody\n",
	"unknown.yaml":  "server: {identify: a}\n",
	"custody.yaml":  "client: {url: 'http://127.0.0.1:1/', server-key: public.pem, psk: camera.psk, custody: lost}\n",
	"scustody.yaml": "keystore: {uri: 'soft:server.keys', pin: 'file:pin'}\nserver: {state: server.db, custody: lost}\n",
	"x509.yaml":     "keystore: {uri: 'soft:server.keys', pin: 'file:pin'}\nserver: {state: server.db, custody: imported, entity-schemes: [X509]}\n",
	"server.yaml":   "keystore: {uri: 'soft:server.keys', pin: 'file:pin'}\nserver: {state: server.db, custody: imported}\n",
	"listen.yaml":   "keystore: {uri: 'soft:server.keys', pin: 'file:pin'}\nserver: {state: server.db, custody: imported, listen: nowhere}\n",
	"limits.yaml":   "client: {limits: {depth: -1}}\n",
	"user.yaml":     "server: {user-schemes: [NAME]}\n",
	"tls.yaml":      "keystore: {uri: 'soft:server.keys', pin: 'file:pin'}\nserver: {state: server.db, tls: {http2: true}}\n",
	"noport.yaml":   "server: {state: {etcd: 'http://127.0.0.1', prefix: m}}\n",
	"empty.psk":     "",
	"broken.psk":    `{"identity": "camera", "encryption": "x"}`,
	"empty":         "",
	"junk":          "junk\n",
	"large":         strings.Repeat("junk\n", 20000),
	"junk.pem":      "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
	"camera.psk":    `{"identity":"camera","encryption":"AAECAwQFBgcICQoLDA0ODw==","mac":"AAECAwQFBgcICQoLDA0ODwABAgMEBQYHCAkKCwwNDg8=","wrapping":"AAECAwQFBgcICQoLDA0ODw=="}`,
	"pin":           "pass\n",
	"wrongpin":      "another\n",
}

// wrongInputs are what people get wrong. Where it is a file, the message names it; in all
// of them it says what to do.
var wrongInputs = []wrongInput{
	// the command line
	{"serv", 2, `did you mean "serve"`},
	{"man", 2, "man takes DIR"},
	{"send --colour", 2, "see msl-hsm send --help"},
	{"send", 2, "give http://HOST:PORT/"},
	{"send ftp://127.0.0.1/ --psk-file camera.psk --server-key public.pem", 2, "want http://"},
	{"send http://ada:secret@127.0.0.1:1/ --psk-file camera.psk --server-key public.pem", 2, "password"},
	{"send http:// --psk-file camera.psk --server-key public.pem", 2, "want http://"},
	{"send http://127.0.0.1:1/ --psk-file camera.psk", 2, "--server-key FILE"},
	{"send http://127.0.0.1:1/ --psk-file nothing.psk --server-key public.pem", 5, "nothing.psk"},
	{"send http://127.0.0.1:1/ --psk-file empty.psk --server-key public.pem", 5, "empty.psk"},
	{"send http://127.0.0.1:1/ --psk-file broken.psk --server-key public.pem", 5, "broken.psk"},
	{"send http://127.0.0.1:1/ --psk-file camera.psk --server-key nothing.pem", 2, "nothing.pem"},
	{"send http://127.0.0.1:1/ --psk-file camera.psk --server-key junk", 2, "PEM"},
	{"send http://127.0.0.1:1/ --psk-file camera.psk --server-key junk.pem", 2, "junk.pem"},
	{"send http://127.0.0.1:1/ --psk-file camera.psk --server-key public.pem --file nothing", 2, "nothing"},
	{"send http://127.0.0.1:1/ --psk-file camera.psk --server-key public.pem --file .", 2, "directory"},
	{"send http://127.0.0.1:1/ --psk-file camera.psk --server-key public.pem --data a --file b", 2, "either --data or --file"},
	{"send http://127.0.0.1:1/ --psk-file camera.psk --server-key public.pem --timeout -1s", 2, "--timeout"},
	{"send http://127.0.0.1:1/ --psk-file camera.psk --server-key public.pem --timeout soon", 2, "--timeout"},
	{"send http://127.0.0.1:1/ --psk-file camera.psk --server-key public.pem --entity-scheme PKS", 2, "want one of"},
	{"send http://127.0.0.1:1/ --psk-file camera.psk --server-key public.pem --key-exchange NONE", 2, "want some of"},
	{"send http://127.0.0.1:1/ --psk-file camera.psk --server-key public.pem --custody lost", 2, "client.custody"},
	{"send http://127.0.0.1:1/ --psk-file camera.psk --server-key public.pem --dh-group big --key-exchange DIFFIE_HELLMAN --custody imported", 2, "want some of"},
	{"send http://127.0.0.1:1/ --psk-file camera.psk --server-key public.pem --user a --user-scheme X", 2, "want EMAIL_PASSWORD"},
	{"send http://127.0.0.1:1/ --psk-file camera.psk --server-key public.pem --state nowhere/c.db", 1, "nowhere"},
	{"send http://127.0.0.1:1/ --psk-file camera.psk --server-key public.pem --state junk", 1, "junk"},
	{"send http://127.0.0.1:1/ --key a --server-key public.pem", 2, "--keystore URI"},
	{"send http://127.0.0.1:1/ --psk-file camera.psk --server-key public.pem --data x", 6, "cannot be reached"},
	{"send https://127.0.0.1:1/ --psk-file camera.psk --server-key public.pem --data x", 6, "cannot be reached"},
	{"send http://no.such.host.invalid/ --psk-file camera.psk --server-key public.pem --data x", 6, "cannot be reached"},
	{"agent --listen 192.0.2.1:80 --url http://127.0.0.1:1/ --psk-file camera.psk --server-key public.pem", 2, ""},
	// the configuration
	{"key list --config ''", 2, "--config"},
	{"state sign --state ''", 2, "--state is empty"},
	{"audit verify log --key ''", 2, "--key"},
	{"inspect ''", 2, "argument 1 is empty"},
	{"session list --state empty", 2, "is empty, so it has no session"},
	{"session forget --state empty", 2, "is empty, so it has no session"},
	{"session list --state loop", 1, "is a symbolic link to itself"},
	{"entity list --state loop", 1, "is a symbolic link to itself"},
	{"failures --file fifo", 1, "to which nobody writes; name a file"},
	{"failures --file .", 1, "not a regular file; name one"},
	{"state restore fifo --config server.yaml", 1, "to which nobody writes"},
	{"state restore junk --config server.yaml", 1, "junk is not a valid copy"},
	{"inspect empty", 1, "nothing to inspect: the input is empty; name a file"},
	{"key import k --algorithm aes128-cbc --file . --config server.yaml", 5, "not a regular file; name one"},
	{"key import k --algorithm aes128-cbc --file pin --config server.yaml", 5, "pin: the file holds no key of 16 bytes"},
	{"key import k --algorithm aes128-cbc --file nothing --config server.yaml", 5, "correct the path"},
	{"send http://127.0.0.1:1/ --psk-file . --server-key public.pem", 5, "not a regular file; name one"},
	{"session list --state junk", 1, "correct the path"},
	{"key list --keystore ''", 2, "--keystore is empty"},
	{"key list --config nothing.yaml", 2, "nothing.yaml"},
	{"key list --config .", 2, "directory"},
	{"key list --config half.yaml", 2, "half.yaml:1:26: client.limits.chunk must be a whole number"},
	{"key list --config exp.yaml", 2, "exp.yaml:1:22: keystore.sessions must be a whole number"},
	{"key list --config two.yaml", 2, "two.yaml:2:1: "},
	{"key list --config tab.yaml", 2, "tab.yaml:2:1: "},
	{"key list --config open.yaml", 2, "open.yaml:1:"},
	{"key list --config quote.yaml", 2, "quote.yaml:"},
	{"key list --config alias.yaml", 2, "alias.yaml:"},
	{"key list --config unknown.yaml", 2, "unknown.yaml:1:10: unknown field"},
	{"key list --config limits.yaml", 2, "client.limits.depth"},
	{"key list --config user.yaml", 2, "user.yaml:1:"},
	{"send --config custody.yaml --data x", 2, "client.custody"},
	// the key store
	{"key list", 2, "--keystore URI"},
	{"key list --keystore soft:", 2, "soft:FILE"},
	{"key list --keystore soft:nothing.keys --pin file:pin", 4, "nothing.keys"},
	{"key list --keystore soft:server.keys --pin file:wrongpin", 5, "passphrase"},
	{"key list --keystore soft:server.keys --pin file:nothing", 5, "nothing"},
	{"key list --keystore soft:server.keys --pin env:PIN", 2, "configuration"},
	{"key list --keystore soft:server.keys --pin pass", 2, "file:PATH"},
	{"key list --keystore soft:junk --pin file:pin", 1, "junk"},
	{"key list --keystore memory:", 2, "soft:FILE"},
	{"key list --softhsm nodir", 4, "nodir"},
	{"key list --keystore tpm:?state=x&device=/nowhere/tpm", 4, ""},
	{"key show nothing --config server.yaml", 4, "nothing"},
	{"key create x --algorithm des --config server.yaml", 2, "des"},
	// the server
	{"serve --config nothing.yaml", 2, "nothing.yaml"},
	{"serve --config listen.yaml", 2, "server.listen"},
	{"serve --config server.yaml --listen 127.0.0.1", 2, "--listen"},
	{"serve --config server.yaml --listen 127.0.0.1:99999", 2, "--listen"},
	{"serve --config server.yaml --listen 127.0.0.1:0 --ready-file public.pem", 2, "--ready-file: public.pem has other content"},
	{"serve --config server.yaml --listen 127.0.0.1:0 --ready-file .", 2, "--ready-file: . is not a regular file"},
	{"serve --config server.yaml --listen 127.0.0.1:0 --ready-file fifo", 2, "--ready-file: fifo is not a regular file"},
	{"serve --config server.yaml --listen 127.0.0.1:0 --ready-file loop", 2, "--ready-file"},
	{"agent http://127.0.0.1:1/ --listen unix:s --psk-file camera.psk --server-key public.pem --ready-file server.yaml", 2, "--ready-file: server.yaml has other content"},
	{"serve --config server.yaml --listen 127.0.0.1:0 --stream nowhere", 2, "--stream"},
	{"serve --config server.yaml --listen 127.0.0.1:0 --peer 127.0.0.1:99999", 2, "--peer"},
	{"serve --config server.yaml --listen 127.0.0.1:0 --tls", 2, "server.tls.certificates"},
	{"serve --config tls.yaml --listen 127.0.0.1:0", 2, "server.tls.certificates"},
	{"serve --config server.yaml --listen 127.0.0.1:0 --upstream ftp://x/", 2, "want http://"},
	{"serve --config server.yaml --listen 127.0.0.1:0 --upstream http://ada:secret@127.0.0.1:1/", 2, "password"},
	{"serve --config server.yaml --listen 127.0.0.1:0 --log-format xml", 2, "want text, json or auto"},
	{"serve --config scustody.yaml --listen 127.0.0.1:0", 2, "server.custody"},
	{"serve --config x509.yaml --listen 127.0.0.1:0", 2, "server.x509-roots"},
	{"serve --config server.yaml --listen 127.0.0.1:0 --state nothing.db", 2, "nothing.db"},
	{"serve --config server.yaml --listen 127.0.0.1:0 --ready-file nowhere/ready", 1, "nowhere"},
	// administration
	{"entity add x --public-key nothing.pem --config server.yaml", 2, "nothing.pem"},
	{"entity add x --generate-psk camera.psk --config server.yaml", 1, "another"},
	{"failures --file junk", 1, "junk"},
	{"failures --file nothing", 1, "nothing"},
	{"state check --state junk", 1, "restore"},
	{"state check --state public.pem", 1, "is not a state file"},
	{"inspect junk", 1, "not"},
	{"inspect public.pem", 1, "PEM"},
	{"inspect nothing", 2, "nothing"},
}

// TestWrongInputs checks that mistakes are reported on one line, in the words of a
// user, with the exit code that belongs to it, and before anything is sent or made.
func TestWrongInputs(t *testing.T) {
	skipWithRace(t)
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("MSL_HSM_CONFIG", "")
	for name, text := range wrongFiles {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile("public.pem", []byte(publicPEM(t, true)), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if code := runCheaply([]string{"key", "create", "--set", "server", "--config", "server.yaml"}, nil, &out, &out); code != 0 {
		t.Fatal(out.String())
	}
	if err := os.Chmod("public.pem", 0o644); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(syscall.Mkfifo("fifo", 0o600), os.Symlink("loop", "loop")); err != nil {
		t.Fatal(err)
	}
	before := filesHere(t)
	for _, c := range slices.Concat(wrongInputs, wrongVerbs) {
		args := strings.Fields(c.args)
		for i := range args {
			args[i] = strings.Trim(args[i], "'")
		}
		var said bytes.Buffer
		ended := make(chan int, 1)
		go func() { ended <- runCheaply(args, strings.NewReader(""), &bytes.Buffer{}, &said) }()
		code := 0
		select {
		case code = <-ended:
		case <-time.After(3 * time.Second):
			t.Errorf("msl-hsm %s: it runs", c.args)
			continue
		}
		text := strings.TrimSpace(said.String())
		lines := strings.Split(text, "\n")
		text = lines[len(lines)-1] // a server logs before it
		switch {
		case code != c.code:
			t.Errorf("msl-hsm %s: exit code %d, want %d: %s", c.args, code, c.code, text)
		case !strings.HasPrefix(text, "msl-hsm: ") || args[0] != "serve" && args[0] != "agent" && len(lines) > 1:
			t.Errorf("msl-hsm %s: not one line: %s", c.args, said.String())
		case packagePrefix.MatchString(strings.TrimPrefix(text, "msl-hsm: ")):
			t.Errorf("msl-hsm %s: the name of a package: %s", c.args, text)
		case goSpeak.MatchString(text):
			t.Errorf("msl-hsm %s: what Go says: %s", c.args, text)
		case doubled(args, text) != "":
			t.Errorf("msl-hsm %s: %s twice: %s", c.args, doubled(args, text), text)
		case !strings.Contains(text, c.want):
			t.Errorf("msl-hsm %s: want %q: %s", c.args, c.want, text)
		case strings.Contains(text, "secret@") || strings.Contains(text, ":secret"):
			t.Errorf("msl-hsm %s: a password: %s", c.args, text)
		}
	}
	if after := filesHere(t); after != before {
		t.Errorf("made: %s, had %s", after, before)
	}
	if info, err := os.Stat("empty"); err != nil || info.Size() > 0 {
		t.Errorf("what only reads wrote to an empty file: %v", err)
	}
}

// filesHere are the names of the files in the working directory.
func filesHere(t *testing.T) string {
	all, err := filepath.Glob("*")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}
