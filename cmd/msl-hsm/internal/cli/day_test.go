//go:build cgo && !nopkcs11

package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// wholeDay is what happens to a server, while a device sends one message after the other: each
// of them is answered, or is sent again, as a device does that gets no answer. It begins with
// the program in OLD, if there is one.
const wholeDay = `
umask 077
[ -z "$OLD" ] || ln -s "$OLD" bin/msl-hsm
programs=$PWD/bin
msl-hsm token init --softhsm /var/lib/msl-hsm/token
cd /var/lib/msl-hsm/token
export MSL_HSM_CONFIG=/var/lib/msl-hsm/token/msl-hsm.yaml
cat >>msl-hsm.yaml <<END
  audit: {file: audit.jsonl}
  access-log: access.jsonl
  upstream: $UPSTREAM
  admin: {listen: $SCRAPED, token: "file:$TOKEN"}
  tls: {certificates: [{certificate: tls.crt, key: tls-1}]}
END
msl-hsm key create --set server
authority() { openssl req -x509 -newkey rsa:2048 -nodes -keyout $1.key -out $1.pem -subj "/CN=$1" -days 9 2>/dev/null; }
certify() { # CA KEY: a new certificate takes the place of the one before
	msl-hsm key request $2 --name 127.0.0.1 >$2.csr
	openssl x509 -req -in $2.csr -CA $1.pem -CAkey $1.key -CAcreateserial -days 9 -copy_extensions copy -out tls.new 2>/dev/null
	mv tls.new tls.crt
}
shown() { openssl s_client -connect 127.0.0.1:8080 </dev/null 2>/dev/null | openssl x509 -noout -serial; }
authority ca-1
msl-hsm key create tls-1 --algorithm ecdsa-p256
certify ca-1 tls-1
cp ca-1.pem roots.pem
cat >camera-1.yaml <<END
client: {psk: camera-1.psk, server-key: server.pem, state: camera-1.db, tls: {roots: roots.pem}}
END
msl-hsm key show msl-identity --public >server.pem
msl-hsm audit key >audit.pem
systemctl start msl-hsm
msl-hsm entity add camera-1 --generate-psk camera-1.psk
send() { msl-hsm send https://127.0.0.1:8080/ --config camera-1.yaml --non-replayable --trace "$@"; }
( set +e; n=0; while [ ! -e evening ]; do
	[ "$(send --data $n 2>trace)" = $n ] || { cat trace >>refused; continue; }
	n=$((n + 1))
	echo $n $(sed -n 's/^sent message_id=\([0-9]*\).*/\1/p' trace | tail -n 1) $(date +%s%N) >>acknowledged
done ) &
traffic=$!
count() { wc -l <acknowledged 2>/dev/null || echo 0; }
more() { # waits until other messages were answered
	was=$(count)
	tries=0
	while [ "$(count)" -lt $((was + 2)) ]; do
		sleep 0.1; tries=$((tries + 1)); [ $tries -lt 600 ] || { tail -n 3 refused >&2; exit 1; }
	done
}
more
msl-hsm key rotate; more
systemctl reload msl-hsm; more
if [ -n "$OLD" ]; then
	msl-hsm state backup before-upgrade.bak
	msl-hsm version >versions
	rm "$programs/msl-hsm"; hash -r
	msl-hsm version >>versions
	msl-hsm config check
	systemctl restart msl-hsm; more
	msl-hsm key rotate; more
fi

echo '== a renewed certificate' >&2
was=$(shown)
certify ca-1 tls-1
while [ "$(shown)" = "$was" ]; do sleep 0.2; more; done # the server looks at its files now and then
more
echo '== another key, of another authority, whom devices trust before' >&2
authority ca-2
cat ca-2.pem >>roots.pem; more
msl-hsm key create tls-2 --algorithm ecdsa-p256
certify ca-2 tls-2
sed -i 's/key: tls-1/key: tls-2/' msl-hsm.yaml
systemctl reload msl-hsm; more
cp ca-2.pem roots.pem; more
msl-hsm state backup server.bak; more
date +%s%N >>crashes; systemctl crash; systemctl start msl-hsm; more
systemctl restart msl-hsm; more
systemctl stop msl-hsm; msl-hsm state restore server.bak; date +%s%N >restored; systemctl start msl-hsm; more
msl-hsm doctor; msl-hsm admin status
sed 's/roots.pem/ca-1.pem/' camera-1.yaml >late.yaml
! msl-hsm send https://127.0.0.1:8080/ --config late.yaml --state late.db --data late
! msl-hsm send https://127.0.0.1:8080/ --config camera-1.yaml --psk-file camera-1.psk --identity stranger --entity-scheme PSK --state stranger.db --data x
more
touch evening; wait $traffic
sleep 3; date +%s%N >night # the metrics are read each second
msl-hsm state check
systemctl stop msl-hsm
msl-hsm audit verify --key audit.pem audit.jsonl
`

// TestDay has a day of a server pass in a minute: with rotated keys and certificates, a crash,
// an upgrade and a restored backup. What a device was told is in the logs, and what the
// dashboard and the alerts ask Prometheus for has answers, of which some are compared with what
// the service behind the server has seen.
func TestDay(t *testing.T) {
	if os.Getenv("MSL_SOAK") == "" {
		t.Skip("a day takes a minute: set MSL_SOAK=1")
	}
	if err := findSoftHSM(); err != nil {
		t.Skip(err)
	}
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	old, err := earlierBuild(t)
	if err != nil {
		t.Logf("the day goes by without an upgrade: %v", err)
	}
	watching, behind := startPrometheus(t), newEchoService(t)
	dir := filepath.Join(walk(t, "set -e\n"+failing(wholeDay), "OLD="+old, "UPSTREAM="+behind.URL,
		"SCRAPED="+watching.scraped, "TOKEN="+watching.token), "lib/token")
	if t.Failed() {
		return
	}
	acknowledged := acknowledgments(t, dir)
	crash, restored, night := moment(t, dir, "crashes"), moment(t, dir, "restored"), moment(t, dir, "night")
	for _, log := range []string{"audit.jsonl", "access.jsonl"} {
		compareAnswered(t, log, acknowledged, answeredIn(t, filepath.Join(dir, log)), crash)
	}
	watching.comparePanels(t, night)
	watching.compareRules(t, night, "MslHsmCertificateEnds") // in 9 days
	evening := behind.since(restored)
	for _, query := range []string{
		`sum(msl_hsm_upstream_requests_total{status="2xx"})`, `sum(msl_hsm_messages_total{result="answered"})`,
		`sum(msl_hsm_upstream_seconds_count)`, `sum(msl_hsm_message_seconds_count{result="answered"})`,
	} {
		if got := watching.number(t, query, night); got != float64(evening) || evening == 0 {
			t.Errorf("%s: %v, and the service had %d requests", query, got, evening)
		}
	}
}

// echoService is a service behind a server, which remembers when it was asked.
type echoService struct {
	*httptest.Server
	mu    sync.Mutex
	asked []time.Time
}

func newEchoService(t *testing.T) *echoService {
	s := &echoService{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, time.Now())
		s.mu.Unlock()
		_, _ = io.Copy(w, r.Body)
	}))
	t.Cleanup(s.Close)
	return s
}

// since returns how often it was asked since then.
func (s *echoService) since(then time.Time) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range s.asked {
		if at.After(then) {
			n++
		}
	}
	return n
}

// moment reads a time that the script wrote.
func moment(t *testing.T, dir, file string) time.Time {
	t.Helper()
	var at int64
	if _, err := fmt.Sscan(readFile(t, filepath.Join(dir, file)), &at); err != nil {
		t.Fatal(file, err)
	}
	return time.Unix(0, at)
}

// earlierBuild builds the program of 150 commits before, which has the settings of this day.
func earlierBuild(t *testing.T) (path string, err error) {
	root, err := filepath.Abs("../../../..")
	if err != nil {
		return "", err
	}
	commit, err := exec.Command("git", "-C", root, "rev-list", "--skip", "150", "--max-count", "1", "HEAD").Output()
	if err != nil || len(commit) == 0 {
		return "", errors.Join(err, errors.New("the history of this repository is not here, or too short"))
	}
	source := t.TempDir()
	path = filepath.Join(source, "earlier")
	build := exec.Command("sh", "-c", `git -C "$1" archive "$2" >"$3/tar" && cd "$3" && tar -xf tar && go build -o "$4" ./cmd/msl-hsm`,
		"sh", root, strings.TrimSpace(string(commit)), source, path)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s", commit, err, out)
	}
	return path, nil
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// acknowledgments returns when the device learned that a message was accepted, by its id.
func acknowledgments(t *testing.T, dir string) map[int64]time.Time {
	t.Helper()
	all := map[int64]time.Time{}
	for line := range strings.Lines(readFile(t, filepath.Join(dir, "acknowledged"))) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			t.Fatalf("acknowledged: %q", line)
		}
		id, errID := strconv.ParseInt(fields[1], 10, 64)
		at, errAt := strconv.ParseInt(fields[2], 10, 64)
		if err := errors.Join(errID, errAt); err != nil {
			t.Fatal(err)
		}
		all[id] = time.Unix(0, at)
	}
	return all
}

// answeredIn counts how often a log says that a message was answered, by its id.
func answeredIn(t *testing.T, path string) map[int64]int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := map[int64]int{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var line struct {
			Event, Msg, Result, Response string
			ID                           int64 `json:"message_id"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatalf("%s: %v: %s", path, err, lines.Bytes())
		}
		if line.Result == "answered" || line.Msg == "message" && line.Response == "" {
			all[line.ID]++
		}
	}
	return all
}

// compareAnswered wants each acknowledged message once in a log. Those of the last moment before
// a crash may not have been written yet: docs/operations.md says for how long.
func compareAnswered(t *testing.T, log string, acknowledged map[int64]time.Time, answered map[int64]int, crash time.Time) {
	t.Helper()
	lost := 0
	for id, at := range acknowledged {
		switch before := crash.Sub(at); {
		case answered[id] == 0 && before > -time.Second && before < time.Second:
			lost++
		case answered[id] != 1:
			t.Errorf("%s: message %d, acknowledged %v before the crash, is in it %d times", log, id, before, answered[id])
		}
	}
	t.Logf("%s: %d messages acknowledged, %d lost to the crash", log, len(acknowledged), lost)
	if lost > len(acknowledged)/2 {
		t.Errorf("%s: %d of %d messages are lost", log, lost, len(acknowledged))
	}
}
