package cli

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// TestInitStops stops tpm init at each command that it sends, as if the process were killed
// or the power lost, and starts it again: what is lost is set aside once there is new, and
// in the end all is there.
func TestInitStops(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	skipWithRace(t)
	for what, lose := range map[string]struct {
		do   func(*testing.T, *tpmtest.TPM)
		lost bool // the keys are
	}{
		"new":     {func(*testing.T, *tpmtest.TPM) {}, false},
		"cleared": {func(t *testing.T, p *tpmtest.TPM) { p.Clear(t) }, true},
		"evicted": {evictStorageKey, false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			p := tpmtest.Start(t)
			var left atomic.Int64 // commands until the stop
			uri := tpmtest.ServeQuirky(t, p, func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
				if left.Add(-1) < 0 {
					return nil, errors.New("stopped")
				}
				return send(command)
			})
			state := filepath.Join(t.TempDir(), "device.keys")
			initialize := func(n int64) (code int, trouble string) {
				left.Store(n)
				var out bytes.Buffer
				code = runCheaply([]string{"--keystore", uri + "&state=" + state, "tpm", "init", "--ek", "p256"}, nil, io.Discard, &out)
				return code, out.String()
			}
			var before []byte
			if what != "new" {
				if code, trouble := initialize(1 << 30); code != 0 {
					t.Fatal(trouble)
				}
				before = contents(t, state)
				lose.do(t, p)
			}
			stopped(t, initialize, state, before)
			if code, trouble := initialize(1 << 30); code != 0 {
				t.Errorf("once more: %s", trouble)
			}
			if now := contents(t, state); before != nil && bytes.Equal(now, before) == lose.lost {
				t.Errorf("the keys changed: %v", !lose.lost)
			}
			checkAside(t, state, before, lose.lost)
		})
	}
}

// stopped repeats tpm init, stopped at one command later each time, until it is through. The
// key file is always there, the old one or the new one.
func stopped(t *testing.T, initialize func(n int64) (int, string), state string, before []byte) {
	t.Helper()
	current := before
	for n := int64(0); ; n++ {
		code, trouble := initialize(n)
		if code == 0 {
			return
		}
		if n > 500 || strings.Contains(trouble, "damaged") || strings.Count(trouble, "msl-hsm: ") > 2 {
			t.Fatalf("stopped at %d: exit code %d, %s", n, code, trouble)
		}
		if now, err := os.ReadFile(state); current != nil && err != nil {
			t.Fatalf("stopped at %d: no key file: %v", n, err)
		} else if err == nil {
			current = now
		}
	}
}

// checkAside checks that the old file is kept if it is of no use any more, and that nothing
// else is left.
func checkAside(t *testing.T, state string, before []byte, lost bool) {
	t.Helper()
	aside, err := filepath.Glob(state + ".*")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, path := range aside {
		name := strings.TrimPrefix(path, state)
		if !strings.HasPrefix(name, ".identity") {
			names = append(names, name)
		}
		if name == ".lost" && !bytes.Equal(contents(t, path), before) {
			t.Errorf("%s is not the old file", name)
		}
	}
	if all := strings.Join(names, " "); lost != strings.HasPrefix(all, ".lost") || strings.Contains(all, ".next") || strings.Contains(all, ".new") {
		t.Errorf("beside the key file: %q", all)
	}
}

func contents(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// evictStorageKey removes the storage key, as another program would.
func evictStorageKey(t *testing.T, p *tpmtest.TPM) {
	t.Helper()
	conn, err := p.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const at = tpm2.TPMHandle(0x81000001)
	chip := transport.FromReadWriter(conn)
	public, err := tpm2.ReadPublic{ObjectHandle: at}.Execute(chip)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tpm2.EvictControl{
		Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: at, Name: public.Name}, PersistentHandle: at,
	}.Execute(chip)
	if err != nil {
		t.Fatal(err)
	}
}

// TestInitAsks makes the keys although the maker has no certificate, and says so.
func TestInitAsks(t *testing.T) {
	asked := make(chan string, 2)
	maker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.URL.Path
		http.NotFound(w, r)
	}))
	defer maker.Close()
	uri := tpmtest.Serve(t) + "&state=" + filepath.Join(t.TempDir(), "device.keys")
	for _, more := range [][]string{nil, {"--ek-service", "amd:" + maker.URL + "/pki"}} {
		var out, trouble bytes.Buffer
		code := runCheaply(append([]string{"--keystore", uri, "tpm", "init", "--ek", "p256"}, more...), nil, &out, &trouble)
		if code != 0 || !strings.HasPrefix(out.String(), "this machine is EK hash ") {
			t.Fatalf("%d, %s", code, trouble.String())
		}
		if said := regexp.MustCompile("^msl-hsm: no certificate of the endorsement key: http://.* answered HTTP 404; without it, an operator must approve").MatchString(trouble.String()); said != (more != nil) {
			t.Error(trouble.String())
		}
	}
	if got := <-asked; len(asked) != 0 || !regexp.MustCompile("^GET /pki/[0-9a-f]{32}$").MatchString(got) {
		t.Error(got)
	}
}
