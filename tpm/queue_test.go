package tpm_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// TestQueue has many users of a TPM behind a socket, which serves one at a time and lets one
// more wait: the others wait, too.
func TestQueue(t *testing.T) {
	uri := tpmtest.Serve(t)
	c := tpm.Config{URI: uri + "&state=" + filepath.Join(t.TempDir(), "state")}
	must[*tpm.Store](t)(tpm.Init(c)).Close()
	var users sync.WaitGroup
	for range 12 {
		users.Go(func() {
			s, err := tpm.OpenStore(c)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			if _, err := s.Generate(keystore.HMACSHA256); err != nil {
				t.Error(err)
			}
		})
	}
	users.Wait()
}

// TestBusyNeighbor has a TPM behind a socket in constant use by one process: another one gets
// its turn, and the first continues with the keys that it had.
func TestBusyNeighbor(t *testing.T) {
	uri := tpmtest.Serve(t)
	c := tpm.Config{URI: uri + "&state=" + filepath.Join(t.TempDir(), "state")}
	busy := must[*tpm.Store](t)(tpm.Init(c))
	defer busy.Close()
	key := must[keystore.Key](t)(busy.Generate(keystore.HMACSHA256)).(keystore.MAC)
	done := make(chan struct{})
	var users sync.WaitGroup
	users.Go(func() {
		for {
			if _, err := key.Sum([]byte("in constant use")); err != nil {
				t.Error(err)
			}
			select {
			case <-done:
				return
			case <-time.After(30 * time.Millisecond):
			}
		}
	})
	defer users.Wait()
	defer close(done)
	other := must[*tpm.Store](t)(tpm.OpenStore(c))
	defer other.Close()
	must[keystore.Key](t)(other.Generate(keystore.HMACSHA256))
}

// TestQueueEnds gives up when the time is over.
func TestQueueEnds(t *testing.T) {
	dir, err := os.MkdirTemp("", "tpm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	start := time.Now()
	_, err = tpm.Open("tpm:?timeout=200ms&unix=" + path)
	is(t, "nobody answers", err, keystore.ErrUnavailable)
	if passed := time.Since(start); passed > 20*time.Second {
		t.Errorf("it took %v", passed)
	}
}

// TestNoDevice names files that are not devices: nothing is written into them.
func TestNoDevice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "device.keys")
	if err := os.WriteFile(path, []byte("the keys"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{path, filepath.Dir(path)} {
		_, err := tpm.Open("tpm:?device=" + what)
		says(t, what, err, keystore.ErrUnavailable, what)
	}
	if text, err := os.ReadFile(path); string(text) != "the keys" || err != nil {
		t.Errorf("the file is %q, %v", text, err)
	}
}

// TestTPM12 opens a TPM 1.2, which answers that it does not know the ordinal.
func TestTPM12(t *testing.T) {
	p := tpmtest.Start(t)
	_, err := tpm.NewDevice(p.Quirky(func([]byte, func([]byte) ([]byte, error)) ([]byte, error) {
		return []byte{0, 0xc4, 0, 0, 0, 10, 0, 0, 0, 10}, nil
	}), time.Minute)
	says(t, "a TPM 1.2", err, keystore.ErrUnavailable, "TPM 1.2", "TPM 2.0 is needed")
	if strings.Contains(err.Error(), "0xa") {
		t.Error(err)
	}
}

// TestRoomAfterTurn has a session for a password salted with the persistent storage key after
// other processes had their turn, too: another key would take the room that enrolling needs.
func TestRoomAfterTurn(t *testing.T) {
	s, _, _ := newStore(t)
	d := s.Device()
	changeAuth(t, d, tpm2.TPMRHEndorsement, "secret")
	if err := d.SetPasswords(tpm.Passwords{Endorsement: source(t, "secret")}); err != nil {
		t.Fatal(err)
	}
	d.MakeWay()
	err := d.Do(func(chip transport.TPM) error {
		if _, err := tpm.Hierarchy(chip, tpm2.TPMRHEndorsement); err != nil {
			return err
		}
		loaded, err := tpm.Handles(chip, 0x80000000, 0x80ffffff)
		if len(loaded) > 0 {
			t.Errorf("%x are loaded", loaded)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestStayOfBrokenConnection checks that a connection that broke does not shorten the stay of the
// next one: otherwise a process would give way more and more often, with each restart of the TPM.
func TestStayOfBrokenConnection(t *testing.T) {
	d := must[*tpm.Device](t)(tpm.Open(tpmtest.Serve(t)))
	defer d.Close()
	stay := d.Break()
	if err := d.Do(func(transport.TPM) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if stay.Stop() {
		t.Error("the stay of the broken connection would still end")
	}
}
