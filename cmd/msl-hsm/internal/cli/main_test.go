//go:debug cryptocustomrand=1

package cli

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
	"github.com/msl-hsm/msl-hsm/internal/pairtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

func TestMain(m *testing.M) {
	if err := pairtest.Install(); err != nil {
		panic(err)
	}
	testscript.Main(leakChecked{m}, map[string]func(){"msl-hsm": func() { os.Exit(runCheaply(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }})
}

// runCheaply is Run for tests, whose passphrases and passwords cost next to nothing.
func runCheaply(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return runWith(cheap, args, stdin, stdout, stderr)
}

func cheap() *config.Config {
	c := config.Default()
	c.Keystore.CheapForTests = true
	c.Server.Watch, c.Client.Agent.Watch = 0, 0 // files that a test changes are read when it says so
	c.Keystore.Argon2 = config.Argon2{Time: 1, Memory: 8, Threads: 1}
	c.Server.Argon2 = c.Keystore.Argon2
	return c
}

//go:embed testdata/session.pem
var sessionPair []byte

// samePair is the pair of all sessions of devices that are not commands, as no test looks at how
// it was made.
func samePair(bits int) (*rsa.PrivateKey, error) {
	if bits != 2048 {
		return rsa.GenerateKey(rand.Reader, bits)
	}
	block, _ := pem.Decode(sessionPair)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	return key.(*rsa.PrivateKey), nil
}

const oneAfterTheOther = "it does one thing after the other: scripts/test runs it without the race detector"

// skipWithRace skips a test in which nothing happens at the same time.
func skipWithRace(t *testing.T) {
	t.Helper()
	if raceDetector {
		t.Skip(oneAfterTheOther)
	}
}

func TestScripts(t *testing.T) {
	t.Parallel() // to tests that wait for time to pass
	missing := findSoftHSM()
	if missing != nil && strings.Contains(os.Getenv("MSL_TEST_REQUIRE"), "softhsm") {
		t.Fatal(missing)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			if name := strings.TrimPrefix(filepath.Base(e.WorkDir), "script-"); raceDetector && !slices.Contains(raced(), name) {
				e.T().Skip(oneAfterTheOther)
			}
			e.Setenv("SOFTHSM2_MODULE", os.Getenv("SOFTHSM2_MODULE"))
			e.Setenv("MSL_HSM_CONFIG", "")
			former, err := filepath.Abs("testdata/former")
			if err != nil {
				return err
			}
			e.Setenv("FORMER", former)
			e.Setenv("GORACE", "atexit_sleep_ms=0") // else each command waits a second before it exits
			e.Setenv("GOMAXPROCS", "1")             // scripts share the processors; threads that meet in page faults cost more than they win
			e.Values[testingT{}] = e.T()
			e.Values[startedEtcd{}] = map[string]*etcdtest.Member{}
			return nil
		},
		Condition: func(name string) (bool, error) {
			switch name {
			case "softhsm":
				return missing == nil, nil
			case "pkcs11":
				return withPKCS11, nil
			case "soak":
				return os.Getenv("MSL_SOAK") != "", nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":           exits,
			"ready":           ready,
			"serverkeys":      serverKeys,
			"servertoken":     serverToken,
			"identitytoken":   identityToken,
			"upstream":        upstream,
			"secureupstream":  secureUpstream,
			"certify":         certify,
			"authority":       testAuthority,
			"capture":         capture,
			"issue":           issue,
			"keypair":         keypair,
			"crl":             crl,
			"expand":          expand,
			"private":         private,
			"occupy":          occupy,
			"slow":            slow,
			"terminate":       terminate,
			"post":            post,
			"measured":        measured,
			"swtpm":           swtpm,
			"cleartpm":        clearTPM,
			"filltpm":         fillTPM,
			"stall":           stall,
			"waitfor":         waitFor,
			"flip":            flip,
			"half":            half,
			"refused":         refused,
			"recorded":        recorded,
			"found":           found,
			"later":           nextSecond,
			"remembers":       remembers,
			"oldkeys":         oldKeys,
			"unrecord":        unrecord,
			"usedlater":       usedLater,
			"withoutwrapping": withoutWrapping,
			"for-each-reader": forEachReader,
			"advice":          followAdvice,
			"empty":           empty,
			"cut":             cut,
			"mode":            mode,
			"leftover":        leftover,
			"silent":          silentServer,
			"flood":           flood,
			"proxied":         proxied,
			"outdate":         outdate,
			"lines":           lines,
			"push":            push,
			"endkeystore":     endKeystore,
			"clone":           clone,
			"withdraw":        withdraw,
			"imitate":         imitate,
			"etcd":            startEtcd,
			"killetcd":        killEtcd,
			"restartetcd":     restartEtcd,
			"balanced":        balanced,
			"etcdctl":         controlEtcd,
			"resend":          resend,
			"within":          within,
			"fetch":           fetch,
			"hangup":          hangup,
			"logged":          logged,
		},
	})
}

// exits CODE COMMAND… runs a command that must end with that code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	code := 0
	err := ts.Exec(args[1], args[2:]...)
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		code = ended.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
	if lines := strings.Count(ts.ReadFile("stderr"), "\n"); code != 0 && lines != 1 {
		ts.Fatalf("%d lines of error, want 1", lines)
	}
}

// ready FILE VAR waits for a server, and keeps its URL in a variable.
func ready(ts *testscript.TestScript, _ bool, args []string) {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if text, err := os.ReadFile(ts.MkAbs(args[0])); err == nil {
			ts.Setenv(args[1], strings.TrimSpace(string(text)))
			return
		}
	}
	ts.Fatalf("the server does not get ready")
}

// upstream VAR starts an HTTP service that answers with the request it got; its path is
// the status of the answer. VARADDR is its address.
func upstream(ts *testscript.TestScript, _ bool, args []string) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if status, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/")); err == nil {
			w.WriteHeader(status)
		}
		fmt.Fprintf(w, "%s %d bytes\n", r.Method, len(body))
		var names []string
		for name := range r.Header {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprintf(w, "%s: %s\n", name, strings.Join(r.Header[name], " | "))
		}
		fmt.Fprintf(w, "[%.100s]\n", body)
	}))
	ts.Defer(s.Close)
	ts.Setenv(args[0], s.URL)
	ts.Setenv(args[0]+"ADDR", s.Listener.Addr().String())
}

// certify KEYFILE PASSPHRASE LABEL OUT makes a certificate for a soft key, signed
// by itself.
func certify(ts *testscript.TestScript, _ bool, args []string) {
	store, err := soft.Config{CheapForTests: true}.Open(ts.MkAbs(args[0]), []byte(args[1]))
	ts.Check(err)
	defer store.Close()
	signer, err := keystore.Find[crypto.Signer](store, args[2])
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "camera 7", Organization: []string{"Example"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, SignatureAlgorithm: x509.SHA256WithRSA,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	ts.Check(err)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	ts.Check(os.WriteFile(ts.MkAbs(args[3]), text, 0o644))
}

// private FILE TEXT writes a file that only its owner may read.
func private(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(args[1]+"\n"), 0o600))
}

// occupy VAR takes a port, and keeps its address in a variable.
func occupy(ts *testscript.TestScript, _ bool, args []string) {
	s := httptest.NewServer(http.NotFoundHandler())
	ts.Defer(s.Close)
	ts.Setenv(args[0], strings.TrimPrefix(s.URL, "http://"))
}

// slow DURATION VAR starts an HTTP service that answers slowly: its first byte
// comes only after that time.
func slow(ts *testscript.TestScript, _ bool, args []string) {
	delay, err := time.ParseDuration(args[0])
	ts.Check(err)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		ts.Check(os.WriteFile(ts.MkAbs("asked"), []byte("http://asked/"), 0o600))
		time.Sleep(delay)
		io.WriteString(w, "late but whole\n")
	}))
	ts.Defer(s.Close)
	ts.Setenv(args[1], s.URL)
}

// silentServer VAR listens, accepts and says nothing, and keeps its address in a variable.
func silentServer(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // on which no connection is accepted
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	ts.Setenv(args[0], l.Addr().String())
}

// terminate sends SIGTERM to the servers in the background.
func terminate(ts *testscript.TestScript, _ bool, _ []string) {
	for _, c := range ts.BackgroundCmds() {
		if len(c.Args) > 1 && c.Args[1] == "serve" && c.ProcessState == nil {
			ts.Check(c.Process.Signal(syscall.SIGTERM))
		}
	}
}
