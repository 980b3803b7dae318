package tpm_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

func TestPIN(t *testing.T) {
	p := tpmtest.Start(t)
	d := device(t, p)
	c := tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state"), PIN: []byte("right")}
	s := must[*tpm.Store](t)(d.InitStore(c))
	defer s.Close()
	v := must[keystore.Version](t)(s.Create("key", keystore.HMACSHA256))
	want := sum(t, v.Key)
	for _, pin := range []string{"a\x00b", strings.Repeat("x", 33)} {
		_, err := d.OpenStore(tpm.StoreConfig{State: c.State, PIN: []byte(pin)})
		says(t, "a PIN that is none", err, keystore.ErrPIN)
	}
	none := openStore(t, d, tpm.StoreConfig{State: c.State})
	_, err := none.Lookup("key")
	says(t, "look up without the PIN", err, keystore.ErrPIN)

	wrong := openStore(t, d, tpm.StoreConfig{State: c.State, PIN: []byte("wrong")})
	k := must[[]keystore.Version](t)(wrong.Lookup("key"))[0].Key.(keystore.MAC)
	before := lockoutCounter(t, d)
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			_, err := k.Sum(nil)
			says(t, "the wrong PIN", err, keystore.ErrPIN, "not tried again")
		})
	}
	group.Wait()
	if n := lockoutCounter(t, d) - before; n != 1 {
		t.Errorf("the wrong PIN was tried %d times", n)
	}
	if !bytes.Equal(sum(t, v.Key), want) {
		t.Error("the right PIN gives another key")
	}
	lockOut(t, d, c.State)
	_, err = v.Key.(keystore.MAC).Sum(nil)
	says(t, "locked out", err, keystore.ErrPIN, "TPM_RC_LOCKOUT", "wait")
	sum(t, must[keystore.Key](t)(s.Generate(keystore.HMACSHA256)))
}

// lockOut guesses PINs until the TPM does not listen any more.
func lockOut(t *testing.T, d *tpm.Device, state string) {
	t.Helper()
	for i := range 10 {
		s := openStore(t, d, tpm.StoreConfig{State: state, PIN: fmt.Appendf(nil, "guess%d", i)})
		k := must[[]keystore.Version](t)(s.Lookup("key"))[0].Key.(keystore.MAC)
		if _, err := k.Sum(nil); errors.Is(err, tpm2.TPMRCLockout) {
			return
		}
	}
	t.Fatal("ten guesses lock nothing")
}

func lockoutCounter(t *testing.T, d *tpm.Device) (n uint32) {
	t.Helper()
	err := d.Do(func(tp transport.TPM) error {
		answer, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(tpm2.TPMPTLockoutCounter), PropertyCount: 1}.Execute(tp)
		if err != nil {
			return err
		}
		properties, err := answer.CapabilityData.Data.TPMProperties()
		if err == nil {
			n = properties.TPMProperty[0].Value
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
