package hsm_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

func write(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// refused checks that Open fails with an error that says what is wrong.
func refused(t *testing.T, c hsm.Config, want error, words string) {
	t.Helper()
	s, err := hsm.Open(c)
	if err == nil {
		s.Close()
	}
	if !errors.Is(err, want) || !strings.Contains(err.Error(), words) {
		t.Errorf("open: %v; want %v that says %q", err, want, words)
	}
}

func TestOpenRefused(t *testing.T) {
	token := softhsm.Temp(t)
	uri := "pkcs11:token=" + token.Label
	with := func(module string) string { return uri + "?module-path=" + module }
	refused(t, hsm.Config{URI: with("/nowhere/module.so"), PIN: token.PIN}, keystore.ErrUnavailable, "no such file")
	refused(t, hsm.Config{URI: with(t.TempDir()), PIN: token.PIN}, keystore.ErrUnavailable, "not a regular file")
	refused(t, hsm.Config{URI: with(write(t, "m.so", "no library", 0o600)), PIN: token.PIN}, keystore.ErrUnavailable, "not a shared library")
	refused(t, hsm.Config{URI: with(write(t, "m.so", "\x7fELF but broken", 0o600)), PIN: token.PIN}, keystore.ErrUnavailable, "m.so")
	refused(t, hsm.Config{URI: "pkcs11:token=missing?module-path=" + token.Module, PIN: token.PIN}, keystore.ErrNotFound, "no initialized PKCS #11 token matches")
	refused(t, hsm.Config{URI: token.URI}, keystore.ErrPIN, "no PIN source")
	refused(t, hsm.Config{URI: token.URI, PIN: "file:/nowhere/pin"}, keystore.ErrPIN, "no such file")
	refused(t, hsm.Config{URI: token.URI, PIN: hsm.PINSource("file:" + write(t, "pin", "1234", 0o640))}, keystore.ErrPIN, "chmod 600")
	refused(t, hsm.Config{URI: token.URI, PIN: hsm.PINSource("file:" + write(t, "pin", "\n", 0o600))}, keystore.ErrPIN, "empty")
	refused(t, hsm.Config{URI: token.URI, PIN: "secret"}, keystore.ErrPIN, "want file:")
	if _, err := hsm.Open(hsm.Config{URI: token.URI, PIN: token.PIN, AllowWeak: []string{"everything"}}); err == nil {
		t.Error("a weakness that does not exist is allowed")
	}
}

func TestWrongPIN(t *testing.T) {
	token := softhsm.Temp(t)
	wrong := hsm.PINSource("file:" + write(t, "pin", "wrong", 0o600))
	refused(t, hsm.Config{URI: token.URI, PIN: wrong}, keystore.ErrPIN, "CKR_PIN_INCORRECT; it was not tried again")
	open(t, hsm.Config{URI: token.URI, PIN: token.PIN})
}

func TestDuplicateLabel(t *testing.T) {
	token := softhsm.Temp(t)
	// InitToken refuses to make a second one, so it is made by hand.
	s := open(t, hsm.Config{URI: token.URI, PIN: token.PIN})
	ctx := pkcs11.New(token.Module)
	slots, err := ctx.GetSlotList(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, slot := range slots {
		info, err := ctx.GetTokenInfo(slot)
		if err != nil || info.Flags&pkcs11.CKF_TOKEN_INITIALIZED != 0 {
			continue
		}
		if err := ctx.InitToken(slot, "12345678", token.Label); err != nil {
			t.Fatal(err)
		}
	}
	refused(t, hsm.Config{URI: token.URI, PIN: token.PIN}, keystore.ErrNotFound, "add ;serial=")
	open(t, hsm.Config{URI: "pkcs11:serial=" + s.Serial() + "?module-path=" + token.Module, PIN: token.PIN})
	if err := hsm.InitToken(token.Module, token.Label, []byte("12345678"), []byte("1234")); !errors.Is(err, keystore.ErrExists) {
		t.Errorf("a second token of the label: %v", err)
	}
}

// keys of each kind that a store recovers, or loses.
type recovered struct {
	sealed, unsealed, provisioned keystore.MAC
	lost                          keystore.MAC
	tags                          [3][]byte
}

func newRecovered(t *testing.T, s *hsm.Store) *recovered {
	t.Helper()
	generate := func() keystore.MAC {
		k, err := s.Generate(keystore.HMACSHA256)
		if err != nil {
			t.Fatal(err)
		}
		return k.(keystore.MAC)
	}
	r := &recovered{sealed: generate(), lost: generate()}
	blob, err := s.Seal(r.sealed, nil)
	if err != nil {
		t.Fatal(err)
	}
	u, err := s.Unseal(keystore.HMACSHA256, blob, nil)
	if err != nil {
		t.Fatal(err)
	}
	v, err := s.Create("kept", keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	r.unsealed, r.provisioned = u.(keystore.MAC), v.Key.(keystore.MAC)
	for i, k := range []keystore.MAC{r.sealed, r.unsealed, r.provisioned} {
		if r.tags[i], err = k.Sum([]byte("data")); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (r *recovered) check(t *testing.T, s *hsm.Store) {
	t.Helper()
	for i, k := range []keystore.MAC{r.sealed, r.unsealed, r.provisioned} {
		tag, err := k.Sum([]byte("data"))
		if err != nil || !bytes.Equal(tag, r.tags[i]) {
			t.Errorf("key %d after recovery: %v, same tag: %t", i, err, bytes.Equal(tag, r.tags[i]))
		}
	}
	if _, err := r.lost.Sum(nil); !errors.Is(err, keystore.ErrLost) {
		t.Errorf("a key that was in the old session only: %v", err)
	}
	k, err := s.Generate(keystore.AES128CBC)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.(keystore.Cipher).Encrypt(make([]byte, 16), nil); err != nil {
		t.Error(err)
	}
	if s.Stats().Epoch < 2 {
		t.Error("the sessions were not opened anew")
	}
}

func TestRecovery(t *testing.T) {
	for name, fault := range map[string]func(t *testing.T, ctx *pkcs11.Ctx, token *softhsm.Token){
		"close-all-sessions": func(t *testing.T, ctx *pkcs11.Ctx, token *softhsm.Token) {
			slots, err := ctx.GetSlotList(true)
			if err != nil {
				t.Fatal(err)
			}
			for _, slot := range slots {
				if err := ctx.CloseAllSessions(slot); err != nil {
					t.Fatal(err)
				}
			}
		},
		"finalize": func(t *testing.T, ctx *pkcs11.Ctx, _ *softhsm.Token) {
			if err := ctx.Finalize(); err != nil {
				t.Fatal(err)
			}
		},
		"logout": func(t *testing.T, _ *pkcs11.Ctx, token *softhsm.Token) {
			a := newAttacker(t, token)
			if err := a.Logout(a.session); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, token := newStore(t)
			r := newRecovered(t, s)
			fault(t, pkcs11.New(token.Module), token)
			r.check(t, s)
		})
	}
}

// TestRecoveryOfCreation checks that operations which make keys recover by themselves too.
func TestRecoveryOfCreation(t *testing.T) {
	s, token := newStore(t)
	k, err := s.Generate(keystore.AES128CBC)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := s.Seal(k, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, op := range map[string]func() error{
		"generate": func() error { _, err := s.Generate(keystore.ECDSAP256); return err },
		"import":   func() error { _, err := s.Import(keystore.AES128CBC, make([]byte, 16)); return err },
		"unseal":   func() error { _, err := s.Unseal(keystore.AES128CBC, blob, nil); return err },
		"lookup":   func() error { _, err := s.Lookup("msl-seal-session"); return err },
		"list":     func() error { _, err := s.List(); return err },
		"create":   func() error { _, err := s.Create("new", keystore.AES128CBC); return err },
	} {
		t.Run(name, func(t *testing.T) {
			// It fails after a look-up that makes no call.
			_ = pkcs11.New(token.Module).Finalize()
			if err := op(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRecoveryInUse finalizes nothing under calls, but takes the sessions away
// from many goroutines at once.
func TestRecoveryInUse(t *testing.T) {
	s, token := newStore(t)
	k, err := s.Generate(keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Seal(k, nil); err != nil {
		t.Fatal(err)
	}
	want, err := k.(keystore.MAC).Sum(nil)
	if err != nil {
		t.Fatal(err)
	}
	a := newAttacker(t, token)
	done := make(chan struct{})
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				tag, err := k.(keystore.MAC).Sum(nil)
				if err == nil && !bytes.Equal(tag, want) {
					t.Error("a wrong tag")
				}
			}
		})
	}
	for range 3 {
		time.Sleep(20 * time.Millisecond)
		a.Logout(a.session)
	}
	close(done)
	group.Wait()
	time.Sleep(200 * time.Millisecond) // past the pause after a recovery that failed
	if tag, err := k.(keystore.MAC).Sum(nil); err != nil || !bytes.Equal(tag, want) {
		t.Errorf("after the logouts: %v", err)
	}
}

// TestKeyDestroyed destroys an object under its key.
func TestKeyDestroyed(t *testing.T) {
	s, token := newStore(t)
	a := newAttacker(t, token)
	k, err := s.Generate(keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.DestroyObject(a.session, pkcs11.ObjectHandle(hsm.Handle(k))); err != nil {
		t.Fatal(err)
	}
	if _, err := k.(keystore.MAC).Sum(nil); !errors.Is(err, keystore.ErrLost) {
		t.Errorf("a destroyed key: %v", err)
	}
	k, _ = s.Generate(keystore.HMACSHA256)
	if _, err := s.Seal(k, nil); err != nil {
		t.Fatal(err)
	}
	want, _ := k.(keystore.MAC).Sum(nil)
	if err := a.DestroyObject(a.session, pkcs11.ObjectHandle(hsm.Handle(k))); err != nil {
		t.Fatal(err)
	}
	if tag, err := k.(keystore.MAC).Sum(nil); err != nil || !bytes.Equal(tag, want) {
		t.Errorf("a destroyed key that was sealed: %v", err)
	}
}

// TestTokenGone takes the files of the token away, and brings them back.
func TestTokenGone(t *testing.T) {
	s, token := newStore(t)
	r := newRecovered(t, s)
	tokens := filepath.Join(filepath.Dir(token.Config), "tokens")
	away := filepath.Join(filepath.Dir(token.Config), "away")
	if err := os.Rename(tokens, away); err != nil {
		t.Fatal(err)
	}
	if _, err := r.provisioned.Sum(nil); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("without its files: %v", err)
	}
	if err := os.RemoveAll(tokens); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(away, tokens); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	r.check(t, s)
}

// TestBusy keeps every session busy.
func TestBusy(t *testing.T) {
	token := softhsm.Temp(t)
	s := open(t, hsm.Config{URI: token.URI, PIN: token.PIN, Sessions: 1, Wait: 20 * time.Millisecond})
	mac, err := s.Generate(keystore.HMACSHA256)
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	busy := false
	var mu sync.Mutex
	data := make([]byte, 8<<20)
	rand.Read(data)
	for range 16 {
		group.Go(func() {
			_, err := mac.(keystore.MAC).Sum(data)
			mu.Lock()
			defer mu.Unlock()
			busy = busy || errors.Is(err, keystore.ErrBusy)
			if err != nil && !errors.Is(err, keystore.ErrBusy) {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if !busy {
		t.Error("16 operations on one session, and none had to wait too long")
	}
}

// TestSmallPool works from 64 goroutines on two sessions.
func TestSmallPool(t *testing.T) {
	token := softhsm.Temp(t)
	s := open(t, hsm.Config{URI: token.URI, PIN: token.PIN, Sessions: 2})
	seal(t, s)
	var group sync.WaitGroup
	for range 64 {
		group.Go(func() {
			k, err := s.Generate(keystore.AES128CBC)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := s.Seal(k, nil); err != nil {
				t.Error(err)
			}
			if _, err := k.(keystore.Cipher).Encrypt(make([]byte, 16), make([]byte, 100)); err != nil {
				t.Error(err)
			}
			if err := k.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	st := s.Stats()
	if st.Sessions > 4 || st.Objects != 0 || st.InUse != 0 {
		t.Errorf("afterwards: %+v", st)
	}
}
