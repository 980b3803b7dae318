package cli

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// goSpeak is what Go's standard library says to programmers.
var goSpeak = regexp.MustCompile(`%!|<nil>|invalid syntax|strconv|dial (?:tcp|unix)|unmarshal|invalid character|unexpected end of JSON|U\+00|map\[|want (?:one|some) of \[|if any flags in the group|Post "|runtime error|goroutine|0xc0|no such host on|context deadline`)

// wrongVerbs are what people get wrong with the verbs of operators, who have server.yaml
// and the files of TestWrongInputs.
var wrongVerbs = []wrongInput{
	{"sned", 2, `did you mean "send"`},
	{"keys list", 2, `did you mean "key"`},
	{"key lst", 2, `did you mean "list"`},
	{"serv --listen 127.0.0.1:0", 2, `did you mean "serve"`},
	{"user pasword ann --password-source file:junk", 2, `did you mean "password"`},
	{"--jsn", 2, "unknown flag: --jsn"},
	{"key list --jsn", 2, "did you mean --json?"},
	{"key list --json=maybe", 2, "want true or false"},
	{"admin foo", 2, "see msl-hsm admin --help"},
	{"help nope", 2, `unknown command "nope"`},
	{"help key lst", 2, `did you mean "list"`},
	{"help serve now", 2, "see msl-hsm help --help"},
	{"completion tcsh", 2, "see msl-hsm completion --help"},
	{"completion bash now", 2, "takes no arguments"},
	{"alerts nope", 2, "lists them all"},
	{"alerts 300", 2, "lists them all"},
	{"errors nope", 2, "lists them all"},
	{"errors 99999999", 2, "lists them all"},
	{"audit verify", 2, "FILE"},
	{"audit verify nothing", 2, "--keystore URI"},
	{"audit verify junk --key nothing.pem", 2, "msl-hsm audit key"},
	{"audit verify junk --key junk", 2, "msl-hsm audit key"},
	{"audit verify . --key public.pem", 2, "name the files"},
	{"audit verify junk --key public.pem --contains x", 2, "such as"},
	{"audit key --config server.yaml", 4, "key create --set audit"},
	{"ca init --config server.yaml", 2, "--out FILE"},
	{"ca init --out public.pem --config server.yaml", 2, "another file"},
	{"ca init --out nowhere/x.pem --config server.yaml", 1, "make the directory"},
	{"ca init --out x.pem --validity -1h --config server.yaml", 2, "--validity"},
	{"ca init --out x.pem --validity soon --config server.yaml", 2, "want a time such as"},
	{"ceremony", 2, "FILE"},
	{"ceremony nothing", 2, "docs/ceremony.md"},
	{"ceremony junk", 2, "junk:1:1"},
	{"ceremony .", 2, "docs/ceremony.md"},
	{"ceremony junk --continue --clean-up", 2, "give one of them"},
	{"ceremony verify nothing", 2, "transcript"},
	{"ceremony verify junk", 2, "name the file"},
	{"ceremony verify .", 2, "transcript"},
	{"channel", 2, "give http://HOST:PORT/"},
	{"channel tcp://127.0.0.1:1 --psk-file camera.psk --server-key public.pem", 6, "cannot be reached"},
	{"channel ws://127.0.0.1:1/ --psk-file camera.psk --server-key public.pem", 6, "cannot be reached"},
	{"config check nothing.yaml", 2, "--config"},
	{"config check half.yaml", 2, "half.yaml:1:26"},
	{"config check .", 2, "directory"},
	{"config check junk", 2, "junk:1:1"},
	{"config check a b", 2, "1 argument"},
	{"doctor --config nothing.yaml", 1, "configuration"},
	{"enrollment list --config server.yaml", 2, "server.enrollment.state"},
	{"enrollment approve", 2, "DEVICE"},
	{"enrollment approve cam --config server.yaml", 2, "server.enrollment.state"},
	{"enrollment approve --file nothing --config server.yaml", 2, "nothing"},
	{"enrollment export e.db --config server.yaml", 2, "state backup"},
	{"enrollment import nothing --config server.yaml", 2, "correct the path"},
	{"enrollment list --since tomorrow --config server.yaml", 2, "want a time like"},
	{"enrollment list --state lost --config server.yaml", 2, "want one of pending, approved"},
	{"enrollment list --limit -1 --config server.yaml", 2, "want a number"},
	{"enrollment list --limit many --config server.yaml", 2, "want a whole number"},
	{"enrollment merge a --config server.yaml", 2, "OLD NEW"},
	{"enrollment revoke --config server.yaml", 2, "DEVICE"},
	{"enrollment quote verify cam nothing --config server.yaml", 2, "16 to 32 bytes"},
	{"enrollment quote verify cam nothing --nonce zz --config server.yaml", 2, "hexadecimal digits"},
	{"enrollment learn --config server.yaml", 2, "DEVICE"},
	{"enrollment learn cam --pcr x --config server.yaml", 2, "want whole numbers"},
	{"enrollment verify junk", 2, "name a file"},
	{"enrollment verify junk --at yesterday", 2, "2026-01-31"},
	{"entity add --config server.yaml", 2, "IDENTITY"},
	{"entity add x --config server.yaml", 2, "give one of"},
	{"entity add x --scheme NOPE --config server.yaml", 2, "want one of PSK, "},
	{"entity add x --public-key junk --config server.yaml", 2, "key show"},
	{"entity add x --psk-file nothing.psk --config server.yaml", 5, "nothing.psk"},
	{"entity add x --psk-file broken.psk --config server.yaml", 5, "JSON object"},
	{"entity add x --psk-file . --config server.yaml", 5, "regular file"},
	{"entity add x --generate-psk camera2.psk --key-exchanges NOPE --config server.yaml", 2, "want some of SYMM"},
	{"entity add x --public-key public.pem --user-schemes NOPE --config server.yaml", 2, "want some of EMAIL"},
	{"entity add x --tpm-psk --config server.yaml", 2, "--storage FILE"},
	{"entity remove nobody --config server.yaml", 1, "entity list"},
	{"entity show nobody --config server.yaml", 1, "entity list"},
	{"entity unrevoke nobody --config server.yaml", 1, "entity list"},
	{"entity list --state nothing.db --config server.yaml", 2, "state init"},
	{"entity list --state junk --config server.yaml", 1, "state restore"},
	{"entity list --state . --config server.yaml", 1, "name a file"},
	{"failures", 2, "--file FILE"},
	{"inspect .", 2, "directory"},
	{"inspect empty.psk", 1, "empty"},
	{"inspect a b", 2, "FILE"},
	{"key create x", 2, "--algorithm"},
	{"key create x --algorithm aes --config server.yaml", 2, "want one of aes128-cbc, "},
	{"key create --set nobody --config server.yaml", 2, "server, device or audit"},
	{"key create x --set server --config server.yaml", 2, "either --set"},
	{"key destroy nope --config server.yaml", 2, "--yes"},
	{"key destroy nope --version 010 --yes --config server.yaml", 2, `--version "010": want a whole number from 0 on in decimal digits, without leading zeros`},
	{"key request msl-identity --self-signed 0x10 --config server.yaml", 2, "in decimal digits"},
	{"key destroy msl-service-mac --version 0 --yes --force --config server.yaml", 2, "the first version of a key is 1"},
	{"key show msl-identity --version 0 --config server.yaml", 2, "the first version of a key is 1"},
	{"key export msl-identity --version 0 --config server.yaml", 2, "the first version of a key is 1"},
	{"key destroy nope --version x --config server.yaml", 2, "want a whole number"},
	{"key destroy msl-identity --version 9 --yes --config server.yaml", 4, "key list"},
	{"key export msl-identity --config server.yaml", 2, "tpm:?state=FILE"},
	{"key import x --config server.yaml", 2, "--file FILE"},
	{"key import x --file nothing --algorithm aes128-cbc --config server.yaml", 5, "nothing"},
	{"key import x --file junk --config server.yaml", 2, "--algorithm"},
	{"key import x --file junk --algorithm aes128-cbc --config server.yaml", 5, "16 bytes"},
	{"key import x --file . --algorithm aes128-cbc --config server.yaml", 5, "regular file"},
	{"key import --set nope --file camera.psk --config server.yaml", 2, "--set issuer"},
	{"key request nope --config server.yaml", 2, "--name HOST"},
	{"key request msl-identity --self-signed x --config server.yaml", 2, "want a whole number"},
	{"key retire --config server.yaml", 2, "--yes"},
	{"key show nope --public --config server.yaml", 4, "key list"},
	{"key show msl-issuer-mac --public --config server.yaml", 2, "no public half"},
	{"module test", 2, "module"},
	{"module test soft:junk", 2, "pkcs11:"},
	{"key list --keystore http://x/ --pin file:pin", 2, "soft:FILE"},
	{"key list --keystore soft:server.keys", 2, "--pin file:PATH"},
	{"key list --keystore soft:nothing.keys", 4, "nothing.keys does not exist: correct the path"},
	{"key list --keystore soft:. --pin prompt", 1, "is not a key file"},
	{"key list --keystore soft:junk", 1, "junk is not a key file: data does not open: correct the path"},
	{"key create x --algorithm aes128-cbc --keystore soft:junk --pin prompt", 1, "junk is not a key file"},
	{"key list --keystore soft:server.keys --pin file:.", 5, "regular file"},
	{"key list --keystore soft:server.keys --pin file:empty.psk", 5, "is empty"},
	{"key list --keystore soft:server.keys --pin fd:x", 2, "want file:PATH"},
	{"key list --keystore soft:server.keys --pin credential:x", 5, "another source, such as prompt"},
	{"key list --keystore soft:server.keys --pin prompt", 5, "another source"},
	{"key list --keystore tpm:", 2, "state=FILE"},
	{"key list --keystore tpm:?state=", 2, "write tpm:?state=FILE"},
	{"key list --keystore tpm:?state=x&state=y", 2, "write tpm:?state=FILE"},
	{"key list --keystore tpm:?State=x", 2, "write tpm:?state=FILE"},
	{"key list --keystore tpm:?state=%00", 2, "without zero bytes; write tpm:?state=FILE"},
	{"key list --keystore tpm:?state=%2e%2e/x&device=/nowhere", 4, "check that this machine has a TPM"},
	{"key list --keystore pkcs11:token=a?module-name=nope", 4, "give its module-path"},
	{"send http://127.0.0.1:1/ --psk-file camera.psk --server-key public.pem --user a@b --data x", 5, "another source"},
	{"send http://127.0.0.1:1/ --psk-file camera.psk --server-key public.pem --count 3", 2, "--wait"},
	{"send http://127.0.0.1:1/ --psk-file camera.psk --server-key public.pem --count x", 2, "want a whole number"},
	{"send http://127.0.0.1:1/ --psk-file camera.psk --server-roots junk", 2, "CERTIFICATE"},
	{"send http://127.0.0.1:1/ --psk-fil camera.psk", 2, "did you mean --psk-file?"},
	{"send 127.0.0.1:1 --psk-file camera.psk --server-key public.pem --data x", 2, "want http://"},
	{"serve extra", 2, "no arguments"},
	{"serve --listen 127.0.0.1:0", 2, "--state FILE"},
	{"serve --config server.yaml --listen 127.0.0.1:0 --admin 0.0.0.0:0", 2, "loopback"},
	{"serve --config server.yaml --listen 127.0.0.1:0 --init-state", 1, "without --init-state"},
	{"serve --config server.yaml --listen 127.0.0.1:0 --upstream unix:", 2, "unix:SOCKET"},
	{"session forget --agent unix:/" + strings.Repeat("x", 107), 2, "must not exceed 107 bytes, and this one has 108"},
	{"session list", 2, "--state FILE"},
	{"session list --state nothing.db", 2, "correct the path"},
	{"session list --state junk", 1, "delete it"},
	{"session list --state server.db", 1, "name another file"},
	{"session logout --state server.db", 2, "EMAIL"},
	{"session forget --agent 127.0.0.1:1", 6, "check that it runs"},
	{"state backup", 2, "FILE"},
	{"state backup junk --config server.yaml", 2, "--force"},
	{"state backup nowhere/b.db --config server.yaml", 1, "make the directory"},
	{"state check --state empty.psk", 1, "state init"},
	{"state compact --state junk", 1, "state restore"},
	{"state check --config noport.yaml", 2, `noport.yaml:1:24: server.state.etcd: "http://127.0.0.1" has no port`},
	{"state compact --state loop", 1, "loop: too many levels of symbolic links; it is a symbolic link to itself: name the file"},
	{"enrollment verify camera.psk", 2, "name a file of its JSON"},
	{"entity add x --psk-file large --config server.yaml", 5, "it has more than 65536 bytes; name the right file"},
	{"send http://127.0.0.1:1/ --psk-file camera.psk --server-roots large", 2, "has no PEM block CERTIFICATE: name a file of certificates"},
	{"state export x.db --config server.yaml", 2, "state backup"},
	{"state import x.db --config server.yaml", 2, "correct the path"},
	{"state init --config server.yaml", 1, "already exists"},
	{"state init --state nowhere/x.db", 1, "make it"},
	{"state restore nothing --config server.yaml", 2, "state backup"},
	{"state restore junk --config server.yaml", 1, "another backup"},
	{"state restore . --config server.yaml", 2, "name the file"},
	{"token init", 2, "module"},
	{"token init --softhsm junk", 4, "another directory"},
	{"token init --keystore pkcs11:?module-path=/nowhere.so", 2, "--label NAME"},
	{"token list --keystore soft:x", 2, "pkcs11:"},
	{"token pin set --keystore soft:x", 2, "pkcs11:"},
	{"token pin change --softhsm nodir", 4, "nodir"},
	{"tpm init --keystore soft:x", 2, "tpm:?state=FILE"},
	{"tpm init --keystore tpm:?state=x&device=/nowhere --ek big", 2, "want one of rsa2048, "},
	{"tpm init --keystore tpm:?state=x&device=/nowhere --algorithm des", 2, "want ecdsa-p256 or rsa2048-sign"},
	{"tpm init --keystore tpm:?state=x&device=/nowhere", 4, "enabled in the firmware"},
	{"tpm init --keystore tpm:?state=x&device=/nowhere --ek-certificate /dev/null", 2, "is empty: get it from the maker again"},
	{"tpm init --keystore tpm:?state=x&device=/nowhere --ek-certificate /dev/zero", 2, "more than 64 MiB"},
	{"tpm quote --nonce zz --keystore tpm:?state=x&device=/nowhere", 2, "hexadecimal digits"},
	{"tpm storage", 2, "16 to 32 bytes"},
	{"tpm status --keystore tpm:?state=x&device=/nowhere", 4, "msl-hsm tpm init"},
	{"user add --config server.yaml", 2, "EMAIL"},
	{"user add a@b --config server.yaml", 5, "another source"},
	{"user add a@b --password-source secret --config server.yaml", 2, "want file:PATH"},
	{"user add a@b --password-source file:empty.psk --config server.yaml", 5, "is empty"},
	{"user remove nobody --config server.yaml", 1, "user list"},
	{"user list --state junk", 1, "state restore"},
	{"admin status", 2, "--state FILE"},
	{"admin reload --config server.yaml", 1, "msl-hsm serve"},
	{"agent", 2, "--listen unix:PATH"},
	{"agent http://127.0.0.1:1/ --listen 0.0.0.0:80 --psk-file camera.psk --server-key public.pem", 2, "loopback"},
	{"man junk", 1, "directory"},
}

// TestEveryVerb gives each verb an argument and a flag that it does not have. It says so on
// one line with the next step, and does nothing.
func TestEveryVerb(t *testing.T) {
	skipWithRace(t)
	t.Chdir(t.TempDir())
	t.Setenv("MSL_HSM_CONFIG", "")
	verbs := 0
	everyVerb(rootCommand(&program{defaults: cheap}), func(c *cobra.Command) {
		verbs++
		path := strings.Fields(c.CommandPath())[1:]
		for _, more := range [][]string{{"--no-such-flag"}, {"a", "b", "c", "d"}} {
			if more[0] == "a" && strings.Contains(c.Use, "...") {
				continue
			}
			var out, said bytes.Buffer
			code := runCheaply(append(path, more...), strings.NewReader(""), &out, &said)
			text := said.String()
			if code != 2 || out.Len() > 0 || strings.Count(text, "\n") != 1 || goSpeak.MatchString(text) {
				t.Errorf("%s %s: exit code %d, %d bytes of output: %s", c.CommandPath(), more[0], code, out.Len(), text)
			}
		}
	})
	if made := filesHere(t); made != "" || verbs < 80 {
		t.Errorf("%d verbs made %q", verbs, made)
	}
}

// everyVerb visits all commands that people see and that have an action of their own.
func everyVerb(c *cobra.Command, visit func(*cobra.Command)) {
	for _, sub := range c.Commands() {
		if sub.Hidden || sub.IsAdditionalHelpTopicCommand() {
			continue
		}
		visit(sub)
		everyVerb(sub, visit)
	}
}

// doubled returns a file of a command line that a message names twice before its next step.
func doubled(args []string, text string) string {
	text, _, _ = strings.Cut(text, "; ")
	for _, path := range args {
		if len(path) > 3 && strings.Contains(path, ".") && strings.Trim(path, "0123456789.:") != "" && strings.Count(text, path) > 1 && !strings.Contains(text, "msl-hsm state init") {
			return path
		}
	}
	return ""
}
