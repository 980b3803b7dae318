package tpm_test

import (
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// TestCounter switches the TPM off without warning after each increment: no value
// comes twice.
func TestCounter(t *testing.T) {
	s, p, _ := newStore(t)
	_, err := s.Counter(tpm.DefaultCounter)
	says(t, "before it is made", err, keystore.ErrNotFound, "0x1804d53", "cleared")
	c := must[*tpm.Counter](t)(s.DefineCounter(tpm.DefaultCounter))
	last := must[uint64](t)(c.Value())
	for range 4 {
		value := must[uint64](t)(c.Increment())
		if value != last+1 {
			t.Errorf("%d after %d", value, last)
		}
		p.Kill()
		if again := must[uint64](t)(c.Value()); again != value {
			t.Errorf("%d became %d without power", value, again)
		}
		last = value
	}
	same := must[*tpm.Counter](t)(s.DefineCounter(tpm.DefaultCounter))
	if value := must[uint64](t)(same.Value()); value != last {
		t.Errorf("defined again: %d, want %d", value, last)
	}
	nothingLoaded(t, device(t, p))
}

// TestCounterRemoved makes a counter again: it continues above its old value.
func TestCounterRemoved(t *testing.T) {
	s, _, _ := newStore(t)
	c := must[*tpm.Counter](t)(s.DefineCounter(tpm.DefaultCounter))
	last := must[uint64](t)(c.Increment())
	if err := c.Remove(); err != nil {
		t.Fatal(err)
	}
	_, err := c.Value()
	says(t, "a counter that is gone", err, keystore.ErrNotFound, "TPM2_NV_Read")
	again := must[*tpm.Counter](t)(s.DefineCounter(tpm.DefaultCounter))
	if value := must[uint64](t)(again.Value()); value <= last {
		t.Errorf("made again it is %d, and was %d", value, last)
	}
}

func TestCounterCleared(t *testing.T) {
	s, p, c := newStore(t)
	counter := must[*tpm.Counter](t)(s.DefineCounter(tpm.DefaultCounter))
	p.Clear(t)
	_, err := counter.Increment()
	says(t, "a running store", err, keystore.ErrForeign, "cleared or replaced", "enrol")
	c.State += "2"
	again := must[*tpm.Store](t)(device(t, p).InitStore(c))
	defer again.Close()
	_, err = again.Counter(tpm.DefaultCounter)
	says(t, "a new store", err, keystore.ErrNotFound, "cleared")
}

// TestCounterUnfinished cuts the power between the making of a counter and its
// first increment.
func TestCounterUnfinished(t *testing.T) {
	s, p, _ := newStore(t)
	define(t, s, tpm2.TPMANV{NT: tpm2.TPMNTCounter, OwnerWrite: true, OwnerRead: true, AuthWrite: true, AuthRead: true, NoDA: true})
	p.Kill()
	_, err := s.Counter(tpm.DefaultCounter)
	is(t, "without a value", err, keystore.ErrNotFound)
	c := must[*tpm.Counter](t)(s.DefineCounter(tpm.DefaultCounter))
	if value := must[uint64](t)(c.Value()); value == 0 {
		t.Error("no first increment")
	}
}

// lock forbids writing to an NV index until the TPM restarts.
func lock(t *testing.T, s *tpm.Store, index tpm2.TPMHandle) {
	t.Helper()
	err := s.Device().Do(func(tp transport.TPM) error {
		p, err := tpm2.NVReadPublic{NVIndex: index}.Execute(tp)
		if err == nil {
			at := tpm2.NamedHandle{Handle: index, Name: p.NVName}
			_, err = tpm2.NVWriteLock{AuthHandle: tpm2.AuthHandle{Handle: index, Name: p.NVName, Auth: tpm2.PasswordAuth(nil)}, NVIndex: at}.Execute(tp)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// define makes an NV index by hand.
func define(t *testing.T, s *tpm.Store, attributes tpm2.TPMANV) {
	t.Helper()
	defineWith(t, s, "", attributes)
}

// defineWith is define for an index with a password.
func defineWith(t *testing.T, s *tpm.Store, password string, attributes tpm2.TPMANV) {
	t.Helper()
	err := s.Device().Do(func(tp transport.TPM) error {
		_, err := tpm2.NVDefineSpace{
			AuthHandle: tpm2.TPMRHOwner, Auth: tpm2.TPM2BAuth{Buffer: []byte(password)},
			PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
				NVIndex: tpm.DefaultCounter, NameAlg: tpm2.TPMAlgSHA256, Attributes: attributes, DataSize: 8,
			}),
		}.Execute(tp)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCounterIsSomethingElse(t *testing.T) {
	for what, attributes := range map[string]tpm2.TPMANV{
		"ordinary":        {OwnerWrite: true, OwnerRead: true, AuthWrite: true, AuthRead: true, NoDA: true},
		"orderly":         {NT: tpm2.TPMNTCounter, Orderly: true, OwnerWrite: true, OwnerRead: true, AuthWrite: true, AuthRead: true, NoDA: true},
		"for its owner":   {NT: tpm2.TPMNTCounter, OwnerWrite: true, OwnerRead: true, NoDA: true},
		"with a lock-out": {NT: tpm2.TPMNTCounter, OwnerWrite: true, OwnerRead: true, AuthWrite: true, AuthRead: true},
	} {
		t.Run(what, func(t *testing.T) {
			s, _, _ := newStore(t)
			define(t, s, attributes)
			_, err := s.DefineCounter(tpm.DefaultCounter)
			says(t, "making it", err, keystore.ErrWrongKey, "another index")
		})
	}
	t.Run("with a password", func(t *testing.T) {
		s, _, _ := newStore(t)
		defineWith(t, s, "secret", tpm2.TPMANV{NT: tpm2.TPMNTCounter, AuthWrite: true, AuthRead: true, NoDA: true})
		_, err := s.DefineCounter(tpm.DefaultCounter)
		says(t, "making it", err, keystore.ErrWrongKey, "it has a password", "another index")
	})
	t.Run("locked", func(t *testing.T) {
		s, _, _ := newStore(t)
		define(t, s, tpm2.TPMANV{NT: tpm2.TPMNTCounter, AuthWrite: true, AuthRead: true, NoDA: true, WriteSTClear: true})
		c := must[*tpm.Counter](t)(s.DefineCounter(tpm.DefaultCounter))
		lock(t, s, tpm.DefaultCounter)
		_, err := c.Increment()
		says(t, "incrementing it", err, keystore.ErrUnavailable, "TPM_RC_NV_LOCKED", "locked it", "another index")
	})
	s, _, _ := newStore(t)
	_, err := s.DefineCounter(0x81000001)
	says(t, "a persistent handle", err, keystore.ErrWrongKey, "not an NV index")
}

// TestCounterLies has an attacker between the host and the TPM answer with old values.
func TestCounterLies(t *testing.T) {
	p := tpmtest.Start(t)
	lie := false
	d := must[*tpm.Device](t)(tpm.NewDevice(p.Quirky(func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
		answer, err := send(command)
		if lie && tpmtest.Command(command) == uint32(tpm2.TPMCCNVRead) && tpmtest.Code(answer) == 0 {
			binary.BigEndian.PutUint64(answer[16:], 1)
		}
		return answer, err
	}), time.Minute))
	defer d.Close()
	s := must[*tpm.Store](t)(d.InitStore(tpm.StoreConfig{State: t.TempDir() + "/state"}))
	defer s.Close()
	c := must[*tpm.Counter](t)(s.DefineCounter(tpm.DefaultCounter))
	want := must[uint64](t)(c.Increment())
	lie = true
	_, err := c.Value()
	says(t, "a changed answer", err, keystore.ErrUnavailable, "changed on the way")
	lie = false
	if value := must[uint64](t)(c.Value()); value != want {
		t.Errorf("%d, want %d", value, want)
	}
}

func TestCounterConcurrently(t *testing.T) {
	s, _, _ := newStore(t)
	c := must[*tpm.Counter](t)(s.DefineCounter(tpm.DefaultCounter))
	var all sync.Map
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for range 8 {
				value, err := c.Increment()
				if _, again := all.LoadOrStore(value, true); err != nil || again {
					t.Errorf("%d came twice, or %v", value, err)
				}
			}
		})
	}
	wait.Wait()
}

func BenchmarkCounter(b *testing.B) {
	s, _, _ := newStore(b)
	c := must[*tpm.Counter](b)(s.DefineCounter(tpm.DefaultCounter))
	b.Run("Value", func(b *testing.B) {
		for b.Loop() {
			must[uint64](b)(c.Value())
		}
	})
	b.Run("Increment", func(b *testing.B) {
		for b.Loop() {
			must[uint64](b)(c.Increment())
		}
	})
}
