//go:build cgo && !nopkcs11

package isolated_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/internal/leaktest"
	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/isolated"
	"github.com/msl-hsm/msl-hsm/keystore/keystoretest"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// The environment variables that make this test a child, or a parent for a while.
const (
	asChild  = "ISOLATED_TEST_CHILD"
	asParent = "ISOLATED_TEST_PARENT"

	asConfined = "ISOLATED_TEST_CONFINED"
	asBrief    = "ISOLATED_TEST_BRIEF"
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(asChild) != "":
		if err := isolated.ServeReporting(openStore); err != nil {
			os.Exit(1) // the parent was told
		}
		os.Exit(0)
	case os.Getenv(asBrief) != "":
		beBrief()
	case os.Getenv(asParent) != "":
		beParent()
	case os.Getenv(asConfined) != "":
		beConfined()
	}
	os.Exit(leaktest.Run(m))
}

// beParent opens a store and tells the process ID of its child, until it is killed.
func beParent() {
	token := &softhsm.Token{URI: os.Getenv(asParent), PIN: hsm.PINSource(os.Getenv(asParent + "_PIN"))}
	text, err := os.ReadFile(strings.TrimPrefix(string(token.PIN), "file:"))
	if err == nil {
		var s *isolated.Store
		settings, _ := json.Marshal(told{URI: token.URI})
		s, err = isolated.Open(isolated.Config{Command: child, Settings: settings, PIN: lockedmem.Move([]byte(strings.TrimSpace(string(text))))})
		if err == nil {
			fmt.Println(s.PID())
			select {}
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// beBrief is a child that crashes as soon as its store is open.
func beBrief() {
	isolated.Serve(func([]byte, *slog.Logger) (keystore.Store, error) {
		time.AfterFunc(5*time.Millisecond, func() { os.Exit(1) })
		return soft.New(), nil
	})
}

// openStore opens the store in a child.
func openStore(settings []byte, to isolated.Reporter) (keystore.Store, error) {
	var c told
	if err := json.Unmarshal(settings, &c); err != nil {
		return nil, err
	}
	if err := isolated.Confine(); err != nil {
		to.Log.Warn("not confined", "error", err)
	}
	s, err := hsm.Open(hsm.Config{
		URI: c.URI, AllowWeak: c.AllowWeak, CallTimeout: c.CallTimeout, Log: to.Log, Calls: to.Calls, Login: to.Login, PIN: hsm.PINSource(fmt.Sprintf("fd:%d", isolated.PINFD)),
	})
	if err != nil {
		return nil, err
	}
	return described{s}, nil
}

type described struct{ *hsm.Store }

func (d described) TakePIN(fd int) error { return d.RenewPIN(hsm.PINSource(fmt.Sprintf("fd:%d", fd))) }

func (d described) Device() isolated.Device {
	st := d.Stats()
	return isolated.Device{Open: st.Sessions, Epoch: st.Epoch, Stuck: st.Stuck}
}

// child is the command of a child: this test.
func child() *exec.Cmd {
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), asChild+"=1")
	c.Stderr = os.Stderr
	return c
}

// A told is what the child needs to know of a token.
type told struct {
	URI         string
	AllowWeak   []string
	CallTimeout time.Duration
}

func settings(t testing.TB, c hsm.Config) []byte {
	t.Helper()
	text, err := json.Marshal(told{c.URI, c.AllowWeak, c.CallTimeout})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// pinOf reads the PIN of a throwaway token.
func pinOf(t testing.TB, token *softhsm.Token) *lockedmem.Buffer {
	t.Helper()
	text, err := os.ReadFile(strings.TrimPrefix(string(token.PIN), "file:"))
	if err != nil {
		t.Fatal(err)
	}
	return lockedmem.Move([]byte(strings.TrimSpace(string(text))))
}

// open opens an isolated store that goes with the test.
func open(t testing.TB, token *softhsm.Token, own hsm.Config, c isolated.Config, started ...*atomic.Int64) *isolated.Store {
	t.Helper()
	if own.URI == "" {
		own.URI = token.URI
	}
	c.Command = func() *exec.Cmd {
		for _, n := range started {
			n.Add(1)
		}
		return child()
	}
	c.Settings, c.PIN = settings(t, own), pinOf(t, token)
	s, err := isolated.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// newToken makes a token with sealing keys.
func newToken(t testing.TB) *softhsm.Token {
	t.Helper()
	token := softhsm.Temp(t)
	s, err := hsm.Open(hsm.Config{URI: token.URI, PIN: token.PIN})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, role := range keystore.SealingRoles() {
		if _, err := s.Create(role.Label("msl"), role.Algorithm()); err != nil {
			t.Fatal(err)
		}
	}
	return token
}

func TestConformance(t *testing.T) {
	token := newToken(t)
	required := slices.DeleteFunc(keystore.Algorithms(), func(a keystore.Algorithm) bool { return a == keystore.AESWrap128 })
	keystoretest.TestStore(t, func(t *testing.T) keystore.Store {
		return open(t, token, hsm.Config{AllowWeak: []string{"imported"}}, isolated.Config{})
	}, required...)
}

func TestNotOpened(t *testing.T) {
	token := newToken(t)
	_, err := isolated.Open(isolated.Config{
		Command: child, Settings: settings(t, hsm.Config{URI: token.URI}), PIN: lockedmem.Copy([]byte("wrong")),
	})
	if want := "hsm: C_Login: CKR_PIN_INCORRECT"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("a wrong PIN is %v, want %s", err, want)
	}
}

func BenchmarkSum(b *testing.B) {
	token := newToken(b)
	within, err := hsm.Open(hsm.Config{URI: token.URI, PIN: token.PIN})
	if err != nil {
		b.Fatal(err)
	}
	defer within.Close()
	for name, s := range map[string]keystore.Store{"in process": within, "isolated": open(b, token, hsm.Config{}, isolated.Config{})} {
		b.Run(name, func(b *testing.B) {
			k, err := s.Generate(keystore.HMACSHA256)
			if err != nil {
				b.Fatal(err)
			}
			defer k.Close()
			data := make([]byte, 1024)
			for b.Loop() {
				if _, err := k.(keystore.MAC).Sum(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
