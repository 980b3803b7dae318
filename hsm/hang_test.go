package hsm_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// hangToken is a token with what newUse and seal make, for stores that wait for nothing.
func hangToken(t *testing.T) *softhsm.Token {
	t.Helper()
	s, token := newStore(t)
	if _, err := s.Create("rsa", keystore.RSAUnwrap2048); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return token
}

// patiently begins again with what a busy machine lets no time for.
func patiently[X any](t *testing.T, do func() (X, error)) X {
	t.Helper()
	for try := 1; ; try++ {
		x, err := do()
		if err == nil {
			return x
		}
		if try == 20 || !errors.Is(err, keystore.ErrUnavailable) && !errors.Is(err, keystore.ErrBusy) {
			t.Fatal(err)
		}
	}
}

// outlasts reports whether do returns after a sleep of that time, which begins with it and is
// late where the machine is busy.
func outlasts(limit time.Duration, do func()) bool {
	slept := make(chan struct{})
	go func() {
		time.Sleep(limit)
		close(slept)
	}()
	do()
	select {
	case <-slept:
		return true
	default:
		return false
	}
}

// TestHang hangs a call of each function: other operations work or fail within the
// wait, and the store closes.
func TestHang(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	token := hangToken(t)
	for _, function := range []string{"C_Sign", "C_GenerateKey", "C_UnwrapKey", "C_WrapKey", "C_DestroyObject", "C_GetAttributeValue",
		"C_FindObjects", "C_OpenSession", "C_Login", "C_CloseSession", "C_SetAttributeValue", "C_Finalize", "C_Initialize", "C_GetSlotList"} {
		t.Run(function, func(t *testing.T) {
			var log bytes.Buffer
			var mu sync.Mutex
			const wait = 150 * time.Millisecond
			m := hsmtest.New(t, token.Module)
			s := patiently(t, func() (*hsm.Store, error) {
				return hsm.Open(hsm.Config{
					URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN,
					Wait: wait, CallTimeout: 300 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&lockedWriter{mu: &mu, w: &log}, nil)),
				})
			})
			u := useOf(t, s, patiently(t, func() ([]keystore.Version, error) { return s.Lookup("rsa") })[0])
			m.Inject(hsmtest.Fault{Function: function, Hang: true, Times: 1},
				hsmtest.Fault{Function: "C_SignInit", Code: pkcs11.CKR_SESSION_HANDLE_INVALID, Times: 2},
				hsmtest.Fault{Function: "C_EncryptInit", Code: pkcs11.CKR_DEVICE_ERROR, Times: 2, Skip: 4})
			stuck := make(chan error, 20)
			began := time.Now()
			for range 4 {
				go func() { stuck <- u.exchange() }()
				go func() { stuck <- u.returning() }()
			}
			time.Sleep(50 * time.Millisecond)
			for range 3 {
				start := time.Now()
				for _, op := range []func() error{u.exchange, u.returning, func() error { _, err := s.Lookup("rsa"); return err }} {
					within(t, 6*wait, op)
				}
				t.Logf("a round takes %v", time.Since(start))
			}
			time.Sleep(max(0, 500*time.Millisecond-time.Since(began)))
			if m.Counters().Fired > 0 && function != "C_Finalize" && function != "C_CloseSession" {
				var err error
				late := outlasts(wait, func() { err = u.same(u.mac) })
				mu.Lock()
				if said := log.String(); !strings.Contains(said, "function="+function) {
					t.Logf("the log does not name it: %q", said)
				}
				mu.Unlock()
				if err != nil && late {
					t.Errorf("long after: %v after more than %v", err, wait)
				}
			}
			var err error
			if outlasts(4*wait, func() { err = s.Close() }) {
				t.Errorf("closing takes more than %v: %v", 4*wait, err)
			}
			m.Clear() // the calls continue, and end in a closed store
			for range 8 {
				<-stuck
			}
			for range 5 { // Close could not do that, and a recovery in progress may undo it
				time.Sleep(50 * time.Millisecond)
				for hsm.Recovering(s) { // a module may crash that is finalized under a call
					time.Sleep(time.Millisecond)
				}
				_ = pkcs11.New(token.Module).Finalize()
			}
		})
	}
}

// within runs op, which must end in time.
func within(t *testing.T, limit time.Duration, op func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- op() }()
	select {
	case err := <-done:
		if err != nil && !errors.Is(err, keystore.ErrUnavailable) && !errors.Is(err, keystore.ErrBusy) && !errors.Is(err, keystore.ErrLost) {
			t.Error(err)
		}
	case <-time.After(limit):
		// The call that hangs may be its own, but at most one does.
		t.Logf("an operation does not end within %v", limit)
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
