//go:build cgo && !nopkcs11

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// allCodes are the return values of PKCS #11 v2.40 except CKR_OK, some of vendors, and
// one that nobody defines.
var allCodes = []uint{
	0x1, 0x2, 0x3, 0x5, 0x6, 0x7, 0x8, 0x9, 0xa, 0x10, 0x11, 0x12, 0x13, 0x1b, 0x20, 0x21, 0x30, 0x31, 0x32, 0x40, 0x41, 0x50, 0x51, 0x54,
	0x60, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x70, 0x71, 0x82, 0x90, 0x91, 0xa0, 0xa1, 0xa2, 0xa3, 0xa4,
	0xb0, 0xb1, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xc0, 0xc1, 0xd0, 0xd1, 0xe0, 0xe1, 0xe2, 0xf0, 0xf1, 0xf2,
	0x100, 0x101, 0x102, 0x103, 0x104, 0x105, 0x110, 0x112, 0x113, 0x114, 0x115, 0x120, 0x121, 0x130, 0x140, 0x150, 0x160, 0x170,
	0x180, 0x190, 0x191, 0x1a0, 0x1a1, 0x1b0, 0x1b1, 0x1b2, 0x1b3, 0x1b4, 0x1b5, 0x1b6, 0x1b7, 0x1b8, 0x1b9, 0x200, 0x201,
	0x80000000, 0x80000001, 0x8f001234, 0xdeadbeef,
}

// serving are the functions that a server calls while it serves.
var serving = []string{
	"C_Initialize", "C_Finalize", "C_GetSlotList", "C_GetTokenInfo", "C_OpenSession", "C_CloseSession", "C_GetSessionInfo", "C_Login",
	"C_CreateObject", "C_DestroyObject", "C_GetAttributeValue", "C_SetAttributeValue", "C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal",
	"C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt", "C_SignInit", "C_Sign", "C_GenerateKey", "C_WrapKey", "C_UnwrapKey",
}

// recovering is held by a test that has its module finalized in this process: SoftHSM
// behind it is the same for all.
var recovering sync.Mutex

func lockModule(t *testing.T) {
	recovering.Lock()
	t.Cleanup(recovering.Unlock)
}

// A faultBench is a server on a module that fails, and its devices.
type faultBench struct {
	*bench
	store  *hsm.Store
	module *hsmtest.Module
	psk    *entityauth.PSK
	fresh  map[string]func() *msl.Client // without a session
	known  *msl.Client                   // with one
	ran    atomic.Int64
}

func newFaultBench(t *testing.T, wait time.Duration) *faultBench {
	lockModule(t)
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	store, err := hsm.Open(hsm.Config{
		URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN,
		Wait: wait, CallTimeout: 3 * wait,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	for label, a := range map[string]keystore.Algorithm{
		"msl-seal-session": keystore.SealSession256, "msl-seal-wrapping": keystore.SealWrapping256, "msl-seal-mac": keystore.SealMAC256,
	} {
		if _, err := store.Create(label, a); err != nil {
			t.Fatal(err)
		}
	}
	f := &faultBench{bench: newBench(t, store), store: store, module: m}
	f.psk = f.server.Peers[0].(*entityauth.PSK)
	f.handle = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		f.ran.Add(1)
		return sendBack(ctx, w, m)
	}
	f.fresh = map[string]func() *msl.Client{"PSK": f.deviceNamed("camera", "PSK"), "RSA": f.deviceNamed("box", "RSA")}
	f.known = f.fresh["PSK"]()
	if err := f.send(f.known); err != nil {
		t.Fatal(err)
	}
	return f
}

// send exchanges a message, and the answer must be whole.
func (f *faultBench) send(c *msl.Client) error {
	response, err := c.Do(context.Background(), &msl.Request{Body: msl.BytesBody([]byte("hello")), Encrypted: true, Authenticated: true})
	if err != nil {
		return err
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err == nil && !bytes.Equal(got, []byte("hello")) {
		err = fmt.Errorf("answered %q", got)
	}
	return err
}

// client is one of a kind of device. The server remembers nothing of it.
func (f *faultBench) client(kind string) *msl.Client {
	f.server.Close()
	f.psk.Close()
	if kind == "returning" {
		return f.known
	}
	return f.fresh[kind]()
}

// transient reports whether a device may try again, and is not blamed.
func transient(err error) bool {
	var peer *msl.PeerError
	return errors.Is(err, msl.ErrNoAnswer) || errors.As(err, &peer) && peer.Response == msl.TransientFailure
}

// cell tries one fault with one kind of device.
func (f *faultBench) cell(t *testing.T, kind string, fault hsmtest.Fault) {
	t.Helper()
	what := fmt.Sprintf("%s, %s call %d = %#x, %d times, for %v, after %t", kind, fault.Function, fault.Skip+1, fault.Code, fault.Times, fault.For, fault.After)
	c := f.client(kind)
	f.ran.Store(0)
	f.module.Inject(fault)
	start := time.Now()
	err := f.send(c)
	took, ran := time.Since(start), f.ran.Load()
	single := fault.Times == 1 && !fault.After
	switch {
	case ran > 1:
		f.Errorf("%s: the application ran %d times", what, ran)
	case single && (err != nil || ran != 1):
		f.Errorf("%s: a single fault: ran %d times, %v", what, ran, err)
	case err != nil && !transient(err):
		f.Errorf("%s: %v", what, err)
	case took > 8*time.Second:
		f.Errorf("%s: took %v", what, took)
	}
	if fault.For > 0 {
		time.Sleep(fault.For - min(fault.For, time.Since(start)))
	}
	f.module.Clear()
	f.back(t, what)
}

// back checks that the service recovers in two seconds, with nothing left behind. On a
// busy machine 40 tries may take longer.
func (f *faultBench) back(t *testing.T, what string) {
	t.Helper()
	var err error
	end := time.Now().Add(2 * time.Second)
	for try := 0; ; try++ {
		time.Sleep(5 * time.Millisecond)
		err = errors.Join(f.send(f.known), f.send(f.fresh["PSK"]()))
		f.server.Close()
		f.psk.Close()
		n, st := f.module.Counters(), f.store.Stats()
		if err == nil && st.Objects == 0 && n.SessionObjects == 0 && n.Sessions <= 6 && st.InUse == 0 {
			return
		}
		if try > 40 && time.Now().After(end) {
			t.Fatalf("%s: 2 s after the fault: %v; %+v, in the module %d sessions and %d objects", what, err, st, n.Sessions, n.SessionObjects)
		}
	}
}

// TestFaultMatrix has a server's module fail at every function that it calls, with
// every code, once, always and for a time, with every kind of device: the server survives;
// the device succeeds or is told to try again; the application runs at most once, and
// exactly once if there is a single fault. The everyday tests run a sample of that, with
// each function in each of the four modes.
func TestFaultMatrix(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	skipWithRace(t)
	t.Parallel()
	f := newFaultBench(t, time.Second)
	kinds := []string{"PSK", "returning", "RSA"}
	step := 113 // it has no factor with the number of kinds, nor of modes
	if os.Getenv("MSL_SOAK") != "" {
		step = 1
	}
	counts := map[string]int{}
	n := 0
	for _, function := range serving {
		for _, code := range allCodes {
			for _, kind := range kinds {
				for _, mode := range []string{"once", "always", "time", "after"} {
					n++
					if n%step != 0 {
						continue
					}
					fault := hsmtest.Fault{Function: function, Code: code}
					switch mode {
					case "once":
						fault.Times, fault.Skip = 1, n/37%9
					case "after":
						fault.Times, fault.Skip, fault.After = 1, n/37%9, true
					case "time":
						fault.For = 50 * time.Millisecond
						if step == 1 && code == 0x30 {
							fault.For = 2 * time.Second
						}
					}
					f.cell(t, kind, fault)
					counts[mode]++
				}
			}
		}
	}
	t.Logf("%d cells of %d: %v", counts["once"]+counts["always"]+counts["time"]+counts["after"], n, counts)
}
