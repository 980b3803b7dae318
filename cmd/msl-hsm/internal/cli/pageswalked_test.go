//go:build cgo && !nopkcs11

package cli

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/porttest"
	"github.com/msl-hsm/msl-hsm/softhsm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// walked is a script for the commands of pages. A line that begins with "% " stands on its page,
// which "@ PAGE" names, and what comes after " ++ " is added to it here; one with "%& " is
// a server, which runs until the next page, and is waited for.
const walked = `
@ README.md
% ./msl-hsm token init --softhsm dev
% export MSL_HSM_CONFIG=dev/msl-hsm.yaml
% ./msl-hsm key create --set server
% ./msl-hsm key list
% ./msl-hsm key show msl-identity --public > server.pem
% ./msl-hsm entity add camera-1 --generate-psk camera-1.psk
% ./msl-hsm user add ada@example.com ++ --password-source file:password
%& ./msl-hsm serve
% ./msl-hsm send http://127.0.0.1:8080/ -v --psk-file camera-1.psk --server-key server.pem --state camera-1.db --user ada@example.com --data 'hello' ++ --password-source file:password
./msl-hsm send http://127.0.0.1:8080/ -v --psk-file camera-1.psk --server-key server.pem --state camera-1.db --user ada@example.com --data 'again' 2>again
grep -q 'master token: re-used' again
% ./msl-hsm token list --keystore 'pkcs11:?module-path=/usr/lib/vendor.so'

@ tls.md
% ./msl-hsm key create tls-p256 --algorithm ecdsa-p256
% ./msl-hsm key request tls-p256 --name msl.example.com > server.csr
openssl req -in server.csr -noout -verify
./msl-hsm key request tls-p256 --name 127.0.0.1 --self-signed 365 >dev/server.crt
cp dev/msl-hsm.yaml plain.yaml
echo '  tls: {certificates: [{certificate: server.crt, key: tls-p256}]}' >>dev/msl-hsm.yaml
serve ./msl-hsm serve --tls
echo 'client: {tls: {roots: dev/server.crt}}' >device.yaml
./msl-hsm send https://127.0.0.1:8080/ --config device.yaml --psk-file camera-1.psk --server-key server.pem --data hello
cp plain.yaml dev/msl-hsm.yaml

@ gateway.md
% python3 docs/examples/wsgi.py 3000 ++ & service=$!
until curl -s --max-time 60 -o answered -H 'Msl-Entity: nobody' http://127.0.0.1:3000/; do kill -0 $service; sleep 0.05; done
%& msl-hsm serve --upstream http://127.0.0.1:3000/
msl-hsm send http://127.0.0.1:8080/ --psk-file camera-1.psk --server-key server.pem --data hello

@ http-over-msl.md
cat >>dev/msl-hsm.yaml <<END
  upstream: http://127.0.0.1:3000
  http: {paths: [/api/]}
END
echo 'client: {agent: {http: true}}' >device.yaml
serve msl-hsm serve
msl-hsm agent http://127.0.0.1:8080/ --config device.yaml --psk-file camera-1.psk --server-key server.pem --listen unix:/run/msl-hsm.sock & agent=$!
awaited /run/msl-hsm.sock
% curl --unix-socket /run/msl-hsm.sock http://agent/api/items?limit=5 ++ -sS --max-time 60 -D headers
! grep -i '^msl-error' headers
kill $agent; wait $agent || :
cp plain.yaml dev/msl-hsm.yaml

@ agent.md
serve msl-hsm serve
T=$(sed -n 's/^ *uri: //p' dev/msl-hsm.yaml)
echo '{"celsius": 21}' >reading.json
% msl-hsm --keystore "$T" agent http://SERVER:8080/ --server-key server.pem --state agent.db --listen unix:/run/msl-hsm.sock ++ --softhsm dev --pin file:dev/pin --psk-file camera-1.psk & agent=$!
awaited /run/msl-hsm.sock
% curl --unix-socket /run/msl-hsm.sock --data-binary @reading.json http://agent/ ++ -sS --max-time 60 -o got
cmp got reading.json
% python3 docs/examples/upload.py /run/msl-hsm.sock reading.json ++ >got
cmp got reading.json
% msl-hsm session logout ada@example.com --agent unix:/run/msl-hsm.sock
% msl-hsm session forget --agent unix:/run/msl-hsm.sock
kill $agent; wait $agent || :

@ peers.md
cat >>dev/msl-hsm.yaml <<END
  push: {path: /push, from: "unix:/run/msl-hsm-push.sock"}
END
serve msl-hsm serve
% msl-hsm channel ws://127.0.0.1:8080/ --psk-file camera-1.psk --server-key server.pem ++ <reading.json >got
cmp got reading.json
% msl-hsm send ws://127.0.0.1:8080/push --psk-file camera-1.psk --server-key server.pem --wait ++ --count 1 >news & client=$!
until grep -q '"delivered": *1' posted 2>/dev/null; do
	% curl --unix-socket /run/msl-hsm-push.sock --data 'news' http://push/camera-1 ++ -sS --max-time 60 >posted
done
wait $client
grep -q news news
cp plain.yaml dev/msl-hsm.yaml

@ monitoring.md
head -c 32 /dev/urandom | base64 >dev/metrics.token
cat >>dev/msl-hsm.yaml <<END
  admin: {listen: "127.0.0.1:9090", token: "file:metrics.token", health: /healthz}
END
%& msl-hsm serve --admin 127.0.0.1:9090
% msl-hsm admin page ++ >url
grep -q '^http://127.0.0.1:9090/#token=' url
curl -sS --max-time 60 -H "Authorization: Bearer $(cat dev/metrics.token)" http://127.0.0.1:9090/metrics | grep -q msl_hsm_ready
curl -sS --max-time 60 -f http://127.0.0.1:8080/healthz
cd dev
% curl --unix-socket server.db.sock 'http://server/debug/pprof/profile?seconds=10' >cpu.pprof ++ -sS --max-time 60
cd ..
[ -s dev/cpu.pprof ]
cp plain.yaml dev/msl-hsm.yaml

@ ceremony.md
cat >FILE <<END
title: Keys of the fleet
operator: Grace Hopper
witnesses: [Ada Lovelace, Charles Babbage]
keys:
- {label: fleet-mac, algorithm: hmac-sha256}
attributes: [always-sensitive, never-extractable, local]
transcript: TRANSCRIPT
END
% msl-hsm ceremony --dry-run FILE
% msl-hsm ceremony FILE ++ >held
HEX=$(sed -n 's/.*\b\([0-9a-f]\{64\}\)\b.*/\1/p' held | head -n 1)
% msl-hsm ceremony verify TRANSCRIPT --key-hash HEX

@ install.md
% msl-hsm man DIR
% man -l DIR/msl-hsm-serve.1 ++ >page
grep -q 'msl-hsm serve' page
msl-hsm completion bash >completion && bash -n completion

@ tpm.md
serve msl-hsm serve
T="$TPM&state=device.keys"
% msl-hsm --keystore "$T" tpm init
% msl-hsm ca init --out ca.pem ++ --config dev/msl-hsm.yaml
mv ca.pem dev
cat >>dev/msl-hsm.yaml <<END
  custody: imported
  enrollment: {state: enrollments.db, ca: ca.pem}
END
% msl-hsm state init
serve msl-hsm serve
! msl-hsm --keystore "$T" tpm enroll --server http://127.0.0.1:8080/enroll --server-key server.pem
% msl-hsm enrollment list --state pending --limit 50
% msl-hsm enrollment list --state refused --since 1d
% msl-hsm enrollment list --name camera- --json | jq -r '.[] | [.id, .name, .issuer_url] | @tsv'
msl-hsm enrollment list --state pending --json | jq -r '.[].id' >delivered.txt
% msl-hsm enrollment approve --file delivered.txt
% msl-hsm --keystore "$T" tpm enroll --server http://SERVER:8080/enroll --server-key server.pem
% msl-hsm --keystore "$T" send http://SERVER:8080/ --server-key server.pem --data hello
% msl-hsm --keystore "$T" send … --state device.db --anti-rollback ++ http://127.0.0.1:8080/ --server-key server.pem --data hello
`

// notWalked are commands of the pages that other tests run, or that a test cannot run.
var notWalked = []string{
	"go ",                   // of Go itself
	"scripts/",              // scripts/soak and people run them
	"git ", "ssh ", "brew ", // of others
	"msl-hsm state ",                                                // operations.md is walked by TestDocsWalked
	"msl-hsm serve --peer 0.0.0.0:8082", "msl-hsm entity add there", // peers.txtar: two machines
	"./msl-hsm key create --set server --pin prompt",                                                   // wants an HSM
	"msl-hsm completion",                                                                               // writes where shells look
	"msl-hsm enrollment learn", "msl-hsm enrollment quote verify", `msl-hsm --keystore "$T" tpm quote`, // tpmpcr.txtar, tpmeventlog.txtar
	`msl-hsm --keystore "$T" tpm enroll --pcr`, `msl-hsm --keystore "$T" tpm renew --pcr`,
	`msl-hsm --keystore "$T" key import`, `msl-hsm --keystore "$T" key export`, // tss2.txtar
	"msl-hsm ceremony --continue", "msl-hsm ceremony --clean-up", // ceremony_test.go
}

// shellLines are the commands of the blocks of a page, without comments and in one line each.
func shellLines(text string) (all []string) {
	text = strings.ReplaceAll(text, "\\\n", " ")
	fenced, shell := false, false
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "```"):
			fenced = !fenced
			shell = fenced && strings.HasPrefix(line, "```sh")
		case shell || !fenced && strings.HasPrefix(line, "    "):
			if line = plainCommand(line); commandName.MatchString(line) {
				all = append(all, line)
			}
		}
	}
	return all
}

var (
	commandName = regexp.MustCompile(`^(\./)?(msl-hsm|curl|python3|export|man) `)
	remark      = regexp.MustCompile(`\s+# .*$`)
	blanks      = regexp.MustCompile(`\s+`)
)

func plainCommand(line string) string {
	return strings.TrimSpace(blanks.ReplaceAllString(remark.ReplaceAllString(strings.TrimRight(line, "\n"), ""), " "))
}

// TestPages wants each command of the pages to be one that a test runs, and the other way round.
func TestPages(t *testing.T) {
	run := map[string][]string{}
	name := ""
	for line := range strings.Lines(walked) {
		if page, found := strings.CutPrefix(line, "@ "); found {
			name = strings.TrimSpace(page)
			run[name] = nil
		}
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "%") {
			command, _, _ := strings.Cut(strings.TrimLeft(line, "%& "), " ++ ")
			run[name] = append(run[name], command)
		}
	}
	for name, commands := range run {
		text := pageOrReadme(t, name)
		there := shellLines(text)
		if len(commands) == 0 {
			t.Errorf("%s: no command is run", name)
		}
		for _, command := range commands {
			if !slices.Contains(there, command) && !strings.Contains(text, "`"+command+"`") {
				t.Errorf("%s does not have %s", name, command)
			}
		}
		for _, command := range there {
			left := slices.ContainsFunc(notWalked, func(begin string) bool { return strings.HasPrefix(command, begin) })
			if !left && !slices.Contains(commands, command) {
				t.Errorf("%s: no test runs %s", name, command)
			}
		}
	}
}

func pageOrReadme(t *testing.T, name string) string {
	t.Helper()
	if name == "README.md" {
		return readFile(t, "../../../../README.md")
	}
	return page(t, name)
}

// walkedTools start a server, and wait for a socket.
const walkedTools = `
set -e
umask 077
echo 'correct horse battery' >password
ln -s "$(command -v msl-hsm)" msl-hsm
mkdir -p run
server=
serve() {
	[ -z "$server" ] || { kill $server; wait $server; }
	rm -f ready
	"$@" --listen 127.0.0.1:8080 --ready-file ready 2>>log & server=$!
	until [ -e ready ]; do kill -0 $server || { tail -n 3 log >&2; exit 1; }; sleep 0.05; done
}
awaited() { tries=0; until [ -S $1 ]; do sleep 0.05; tries=$((tries + 1)); [ $tries -lt 1200 ]; done; }
trap 'kill $server $service $agent $client 2>/dev/null || :' EXIT
`

// TestPagesWalked types what stands on the other pages: all of them with MSL_SOAK=1, else the
// README.
func TestPagesWalked(t *testing.T) {
	skipWithRace(t)
	module, err := softhsm.FindModule()
	if err != nil {
		t.Skip(err)
	}
	t.Parallel()
	pages := "README.md"
	script := walked
	uri := ""
	if os.Getenv("MSL_SOAK") == "" {
		script, _, _ = strings.Cut(walked, "@ tls.md")
	} else {
		pages = "all pages"
		for _, tool := range []string{"openssl", "python3", "curl", "jq", "man"} {
			if _, err := exec.LookPath(tool); err != nil {
				t.Skipf("%s is not installed", tool)
			}
		}
		uri = tpmtest.Serve(t)
	}
	t.Logf("walk %s", pages)
	dir := t.TempDir()
	examples, err := filepath.Abs("../../../../docs")
	if err != nil {
		t.Fatal(err)
	}
	script = regexp.MustCompile(`(?m)^@ (.*)$`).ReplaceAllString(script, "echo '== $1' >&2")
	script = regexp.MustCompile(`(?m)^(\t*)%& (.*)$`).ReplaceAllString(script, "${1}serve $2")
	script = regexp.MustCompile(`(?m)^(\t*)% (.*)$`).ReplaceAllString(script, "$1$2")
	port := freePort(t)
	script = strings.NewReplacer(" ++ ", " ", "SERVER:8080", "127.0.0.1:8080", "/usr/lib/vendor.so", module, "send … ", "send ",
		"--key-hash HEX", "--key-hash $HEX", "/run/msl-hsm", dir+"/msl-hsm", "docs/examples", examples+"/examples",
		":3000", ":"+port, " 3000 ", " "+port+" ", ":9090", ":"+freePort(t)).Replace(script)
	walk(t, walkedTools+failing(script), "TPM="+uri)
}

func freePort(t *testing.T) string {
	t.Helper()
	_, port, err := net.SplitHostPort(porttest.Address(t))
	if err != nil {
		t.Fatal(err)
	}
	return port
}
