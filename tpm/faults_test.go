package tpm_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// says checks for an error that says what to do.
func says(t testing.TB, what string, err, want error, words ...string) {
	t.Helper()
	is(t, what, err, want)
	for _, w := range words {
		if err != nil && !strings.Contains(err.Error(), w) {
			t.Errorf("%s: the error does not say %q: %v", what, w, err)
		}
	}
}

func TestAbsent(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	for _, uri := range []string{"tpm:?unix=/nowhere/sock", "tpm:?device=/nowhere/tpm", "tpm:?device=/dev/null", "tpm:?tcp=127.0.0.1:1"} {
		_, err := tpm.Open(uri)
		is(t, uri, err, keystore.ErrUnavailable)
		_, err = tpm.OpenStore(tpm.Config{URI: uri + "&state=" + state})
		is(t, uri, err, keystore.ErrUnavailable)
	}
	if _, err := os.Stat(state); err == nil {
		t.Error("a state file was made without a TPM")
	}
}

// TestServed uses TPMs as other processes do, one after the other, and looks
// whether anything is left in the TPM.
func TestServed(t *testing.T) {
	for _, uri := range []string{tpmtest.Serve(t), tpmtest.ServeTCP(t)} {
		c := tpm.Config{URI: uri + "&timeout=30s&state=" + filepath.Join(t.TempDir(), "state")}
		s, err := tpm.Init(c)
		if err != nil {
			t.Fatal(err)
		}
		k := must[keystore.Key](t)(s.Generate(keystore.HMACSHA256))
		tag := sum(t, k)
		blob := must[[]byte](t)(s.Seal(k, nil))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		_, err = tpm.Init(c)
		is(t, "a second Init", err, keystore.ErrExists)
		s = must[*tpm.Store](t)(tpm.OpenStore(c))
		if !bytes.Equal(sum(t, must[keystore.Key](t)(s.Unseal(keystore.HMACSHA256, blob, nil))), tag) {
			t.Error("another key")
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		d := must[*tpm.Device](t)(tpm.Open(uri))
		nothingLoaded(t, d)
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

// nothingLoaded asks the TPM for transient objects and sessions.
func nothingLoaded(t *testing.T, d *tpm.Device) {
	t.Helper()
	err := d.Do(func(tp transport.TPM) error {
		for _, first := range []uint32{0x80000000, 0x02000000, 0x03000000} {
			answer, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: 64}.Execute(tp)
			if err != nil {
				return err
			}
			handles, err := answer.CapabilityData.Data.Handles()
			if err != nil {
				return err
			}
			for _, h := range handles.Handle {
				if uint32(h)>>24 == first>>24 {
					t.Errorf("handle %#x is left in the TPM", uint32(h))
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestClearedAndReplaced(t *testing.T) {
	for what, change := range map[string]func(*tpmtest.TPM){
		"cleared":  func(p *tpmtest.TPM) { p.Clear(t) },
		"replaced": func(p *tpmtest.TPM) { p.Replace(t) },
	} {
		t.Run(what, func(t *testing.T) {
			s, p, c := newStore(t)
			k := must[keystore.Key](t)(s.Generate(keystore.HMACSHA256))
			sum(t, k)
			change(p)
			_, err := k.(keystore.MAC).Sum(nil)
			says(t, "a running store", err, keystore.ErrForeign, "cleared or replaced", "enrol")
			_, err = device(t, p).OpenStore(c)
			says(t, "opening", err, keystore.ErrForeign, "cleared or replaced", "enrol")
			// A new storage key at the same place is still not the pinned one.
			other := c
			other.State += "2"
			again := must[*tpm.Store](t)(device(t, p).InitStore(other))
			defer again.Close()
			_, err = again.Device().OpenStore(c)
			says(t, "opening beside a new one", err, keystore.ErrForeign, "enrol")
		})
	}
}

func TestOtherTPMsBlob(t *testing.T) {
	a, _, _ := newStore(t)
	b, _, _ := newStore(t)
	must[keystore.Version](t)(a.Create("key", keystore.ECDSAP256))
	text := must[[]byte](t)(a.ExportTSS2("key", 1))
	_, err := b.ImportTSS2("key", keystore.ECDSAP256, text)
	says(t, "a blob of another TPM", err, keystore.ErrForeign, "TPM2_Load", "TPM_RC_INTEGRITY", "the file belongs to another TPM, or to this one before it was cleared")
	if _, err := a.ImportTSS2("copy", keystore.ECDSAP256, text); err != nil {
		t.Error(err)
	}
}

// TestBusy makes the TPM ask to repeat every command, a few times and for ever.
func TestBusy(t *testing.T) {
	for _, code := range []uint32{0x922, 0x908, 0x90a} {
		p := tpmtest.Start(t)
		d := must[*tpm.Device](t)(tpm.NewDevice(p.Quirky(tpmtest.Retry(code, 3)), time.Minute))
		s := must[*tpm.Store](t)(d.InitStore(tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state")}))
		sum(t, must[keystore.Key](t)(s.Generate(keystore.HMACSHA256)))
		s.Close()
		d.Close()
	}
	p := tpmtest.Start(t)
	_, err := tpm.NewDevice(p.Quirky(tpmtest.Retry(0x922, 1<<30)), 20*time.Millisecond)
	says(t, "busy for ever", err, keystore.ErrBusy, "TPM_RC_RETRY")
}

// TestDead stops the TPM: a command ends at the time-out, and the next one finds
// it switched on again.
func TestDead(t *testing.T) {
	p := tpmtest.Start(t)
	d := must[*tpm.Device](t)(tpm.NewDevice(p.Dial, 500*time.Millisecond))
	defer d.Close()
	s := must[*tpm.Store](t)(d.InitStore(tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state")}))
	defer s.Close()
	k := must[keystore.Key](t)(s.Generate(keystore.HMACSHA256))
	want := sum(t, k)
	p.Freeze(t)
	_, err := k.(keystore.MAC).Sum(nil)
	says(t, "a TPM that does not answer", err, keystore.ErrUnavailable, "no answer")
	if !bytes.Equal(sum(t, k), want) {
		t.Error("another key after the TPM came back")
	}
	p.Kill()
	if !bytes.Equal(sum(t, k), want) {
		t.Error("another key after a loss of power")
	}
}

// work uses every kind of key whose making does not take long.
func work(s *tpm.Store) error {
	for _, a := range able() {
		if !a.Secret() && a != keystore.ECDSAP256 {
			continue
		}
		k, err := s.Generate(a)
		if err != nil {
			return fmt.Errorf("%v: %w", a, err)
		}
		switch k := k.(type) {
		case keystore.MAC:
			_, err = k.Sum(make([]byte, 2500))
			if err == nil {
				_, err = s.Seal(k, nil)
			}
		case keystore.Cipher:
			var c []byte
			if c, err = k.Encrypt(make([]byte, 16), make([]byte, 2500)); err == nil {
				_, err = k.Decrypt(make([]byte, 16), c)
			}
		}
		if err := errors.Join(err, k.Close()); err != nil {
			return fmt.Errorf("%v: %w", a, err)
		}
	}
	return nil
}

// TestResetAnywhere switches the TPM off and on before each command of some
// work, once so that the connection breaks and once so that it does not.
func TestResetAnywhere(t *testing.T) {
	for _, what := range []string{"silent", "broken", "unstarted"} {
		t.Run(what, func(t *testing.T) {
			p := tpmtest.Start(t)
			r := &resetter{p: p, broken: what == "broken", unstarted: what == "unstarted"}
			d := must[*tpm.Device](t)(tpm.NewDevice(p.Quirky(r.quirk), time.Minute))
			defer d.Close()
			s := must[*tpm.Store](t)(d.InitStore(tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state")}))
			defer s.Close()
			if err := work(s); err != nil {
				t.Fatal(err)
			}
			r.arm(1 << 30)
			if err := work(s); err != nil {
				t.Fatal(err)
			}
			for at := range r.seen {
				r.arm(at + 1)
				if err := work(s); err != nil {
					t.Errorf("reset before command %d: %v", at+1, err)
				}
			}
			isEmpty(t, s)
		})
	}
}

// A resetter is a quirk that switches the TPM off and on once.
type resetter struct {
	p         *tpmtest.TPM
	broken    bool // the connection with it
	unstarted bool // it waits for TPM2_Startup
	at, seen  int
	waiting   bool
	conn      io.ReadWriteCloser
}

func (r *resetter) arm(at int) { r.at, r.seen = at, 0 }

func (r *resetter) quirk(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
	r.seen++
	if r.at > 0 && r.seen == r.at {
		r.p.Kill()
		if r.broken {
			r.conn = nil
			return nil, io.ErrUnexpectedEOF
		}
		conn, err := r.p.Dial()
		if err != nil {
			return nil, err
		}
		r.conn, r.waiting = conn, r.unstarted
	}
	if r.waiting {
		if tpmtest.Command(command) != 0x144 {
			return tpmtest.Refuse(0x100), nil // TPM_RC_INITIALIZE
		}
		r.waiting = false
		return tpmtest.Refuse(0), nil
	}
	if r.conn != nil {
		return tpmtest.Exchange(r.conn, command)
	}
	return send(command)
}

// TestResetUnnoticed resets the TPM when no session is there to notice it: the
// TPM hands out the same handle again, for another key.
func TestResetUnnoticed(t *testing.T) {
	p := tpmtest.Start(t)
	r := &resetter{p: p}
	d := must[*tpm.Device](t)(tpm.NewDevice(p.Quirky(r.quirk), time.Minute))
	defer d.Close()
	s := must[*tpm.Store](t)(d.InitStore(tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state")}))
	defer s.Close()
	one := must[keystore.Key](t)(s.Import(keystore.HMACSHA256, make([]byte, 32)))
	two := must[keystore.Key](t)(s.Import(keystore.HMACSHA256, bytes.Repeat([]byte{1}, 32)))
	want := sum(t, one)
	p2 := must[*tpm.ImportParent](t)(s.NewImportParent())
	dup := must[keystore.Duplicated](t)(tpm.Duplicate(p2.Public(), keystore.HMACSHA256, make([]byte, 32)))
	if _, err := p2.Import(keystore.HMACSHA256, keystore.Duplicated{Public: dup.Public, Duplicate: flip(dup.Duplicate), Seed: dup.Seed}); err == nil {
		t.Fatal("a changed duplicate was imported") // the error ends the session
	}
	p2.Close()
	r.arm(1)
	sum(t, two)
	if !bytes.Equal(sum(t, one), want) {
		t.Error("one key was taken for another")
	}
	isEmpty(t, s)
}

func TestNoEncryptDecrypt(t *testing.T) {
	p := tpmtest.Start(t)
	d := must[*tpm.Device](t)(tpm.NewDevice(p.Quirky(tpmtest.WithoutEncryptDecrypt), time.Minute))
	defer d.Close()
	if d.Capabilities().EncryptDecrypt {
		t.Error("the device thinks that there is TPM2_EncryptDecrypt2")
	}
	s := must[*tpm.Store](t)(d.InitStore(tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state")}))
	defer s.Close()
	for _, a := range []keystore.Algorithm{keystore.AES128CBC, keystore.AESReveal128} {
		_, err := s.Generate(a)
		says(t, a.String(), err, errors.ErrUnsupported, "TPM2_EncryptDecrypt2")
		_, err = s.Create("key", a)
		says(t, a.String(), err, errors.ErrUnsupported, "TPM2_EncryptDecrypt2")
	}
	sum(t, must[keystore.Key](t)(s.Generate(keystore.HMACSHA256)))
	sum(t, must[keystore.Key](t)(s.Generate(keystore.AESCMAC128)))
}

// TestKilled cuts the power often while keys are in use: that must not lock the
// TPM.
func TestKilled(t *testing.T) {
	s, p, _ := newStore(t)
	k := must[keystore.Key](t)(s.Generate(keystore.HMACSHA256))
	v := must[keystore.Version](t)(s.Create("key", keystore.ECDSAP256))
	for range 10 {
		sum(t, k)
		sign(t, v.Key)
		p.Kill()
	}
}

// TestStateVanished removes the directory in which the software TPM keeps its
// state: operations that have to store something fail with an error.
func TestStateVanished(t *testing.T) {
	s, p, _ := newStore(t)
	must[keystore.Version](t)(s.Create("key", keystore.ECDSAP256))
	if err := os.RemoveAll(p.State); err != nil {
		t.Fatal(err)
	}
	err := s.Persist("key", 1, 0x81000010)
	says(t, "persist", err, keystore.ErrUnavailable, "TPM2_EvictControl", "state directory")
	if _, err := s.Lookup("key"); err != nil {
		t.Error(err)
	}
}
