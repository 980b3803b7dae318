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

// TestHang hangs a call of each function: other operations work or fail within the
// wait, and the store closes.
func TestHang(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, function := range []string{"C_Sign", "C_GenerateKey", "C_UnwrapKey", "C_WrapKey", "C_DestroyObject", "C_GetAttributeValue",
		"C_FindObjects", "C_OpenSession", "C_Login", "C_CloseSession", "C_SetAttributeValue", "C_Finalize", "C_Initialize", "C_GetSlotList"} {
		t.Run(function, func(t *testing.T) {
			var log bytes.Buffer
			var mu sync.Mutex
			const wait = 150 * time.Millisecond
			token := softhsm.Temp(t)
			m := hsmtest.New(t, token.Module)
			s, err := hsm.Open(hsm.Config{
				URI: "pkcs11:token=" + token.Label + "?module-path=" + m.Path, PIN: token.PIN,
				Wait: wait, CallTimeout: 300 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&lockedWriter{mu: &mu, w: &log}, nil)),
			})
			if err != nil {
				t.Fatal(err)
			}
			seal(t, s)
			u := newUse(t, s)
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
				start := time.Now()
				err := u.same(u.mac)
				mu.Lock()
				if said := log.String(); !strings.Contains(said, "function="+function) {
					t.Logf("the log does not name it: %q", said)
				}
				mu.Unlock()
				if d := time.Since(start); err != nil && d > wait {
					t.Errorf("long after: %v after %v", err, d)
				}
			}
			start := time.Now()
			err = s.Close()
			if d := time.Since(start); d > 4*wait {
				t.Errorf("closing takes %v: %v", d, err)
			}
			m.Clear() // the calls continue, and end in a closed store
			for range 8 {
				<-stuck
			}
			for range 5 { // Close could not do that, and a recovery in progress may undo it
				time.Sleep(50 * time.Millisecond)
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
