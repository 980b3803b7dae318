package entityauth

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/sha512"
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

func groupCipher(t testing.TB, store *soft.Store, key []byte) keystore.Cipher {
	t.Helper()
	v, err := store.Provision("group", keystore.AES128CBC, key)
	if err != nil {
		t.Fatal(err)
	}
	return v.Key.(keystore.Cipher)
}

// The derivation is ECB, block by block.
func TestDeriveGroupKeys(t *testing.T) {
	store := soft.New()
	defer store.Close()
	key := []byte("0123456789abcdef")
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	group := groupCipher(t, store, key)
	for _, identity := range []string{"", "MODEL-1", "Zoë"} {
		want := sha512.Sum384([]byte(identity))
		for i := 0; i < len(want); i += 16 {
			block.Encrypt(want[i:], want[i:])
		}
		if got, err := DeriveGroupKeys(group, identity); err != nil || !bytes.Equal(got, want[:]) {
			t.Errorf("%q: %x, %v, want %x", identity, got, err, want)
		}
	}
	if _, err := DeriveGroupKeys(nil, "x"); !errors.Is(err, keystore.ErrWrongKey) {
		t.Errorf("no group key: %v", err)
	}
}

// A watched group and importer keep every buffer that they were given or gave.
type watched struct {
	keystore.Cipher
	keystore.Importer
	buffers [][]byte
	calls   int
	failAt  int // the call that fails, from 1
}

var errWatched = errors.New("device failed")

func (w *watched) call(b []byte) error {
	w.buffers = append(w.buffers, b)
	if w.calls++; w.calls == w.failAt {
		return errWatched
	}
	return nil
}

func (w *watched) Encrypt(iv, plaintext []byte) ([]byte, error) {
	out, err := w.Cipher.Encrypt(iv, plaintext)
	return out, errors.Join(err, w.call(out))
}

func (w *watched) Import(a keystore.Algorithm, raw []byte) (keystore.Key, error) {
	if err := w.call(raw); err != nil {
		return nil, err
	}
	return w.Importer.Import(a, raw)
}

// The derived keys are wiped and no key stays open, whichever call fails.
func TestMGKWipes(t *testing.T) {
	for failAt := range 7 {
		store := soft.New()
		w := &watched{Cipher: groupCipher(t, store, []byte("0123456789abcdef")), Importer: store, failAt: failAt}
		m := &MGK{Importer: w, Group: func(context.Context, string) (ModelGroup, error) {
			return ModelGroup{Name: "m", Key: w}, nil
		}}
		_, release, err := m.Open(context.Background(), []byte(`{"identity":"x"}`))
		if failed := failAt > 0 && failAt < 6; failed != (err != nil) || failed && !errors.Is(err, errWatched) {
			t.Errorf("call %d fails: %v", failAt, err)
		}
		if err == nil {
			release()
		}
		for i, b := range w.buffers {
			if !bytes.Equal(b, make([]byte, len(b))) {
				t.Errorf("call %d fails: buffer %d is %x", failAt, i, b)
			}
		}
		m.Close()
		if objects, _ := store.Live(); objects != 0 {
			t.Errorf("call %d fails: %d keys open", failAt, objects)
		}
		store.Close()
	}
}

// Key sets are remembered by group and identity, up to a bound, and only those of
// peers that proved themselves.
func TestMGKRemembers(t *testing.T) {
	store := soft.New()
	defer store.Close()
	w := &watched{Cipher: groupCipher(t, store, []byte("0123456789abcdef")), Importer: store}
	name := "m"
	m := &MGK{Importer: w, Remember: 2, Group: func(context.Context, string) (ModelGroup, error) {
		return ModelGroup{Name: name, Key: w}, nil
	}}
	open := func(identity string, proves bool) int {
		w.calls = 0
		sender, release, err := m.Open(context.Background(), []byte(`{"identity":"`+identity+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		if proves {
			sender.Proven()
		}
		release()
		return w.calls
	}
	for i, step := range []struct {
		group, identity string
		proves          bool
		calls           int
	}{
		{"m", "a", false, 5}, {"m", "a", true, 5}, {"m", "a", true, 0}, {"m", "b", true, 5}, {"m", "a", true, 0},
		{"m", "x", false, 5}, {"m", "b", false, 0}, {"m", "c", true, 5}, {"m", "b", true, 5}, {"n", "b", true, 5},
	} {
		name = step.group
		if calls := open(step.identity, step.proves); calls != step.calls {
			t.Errorf("step %d: %d calls", i, calls)
		}
	}
	if objects, _ := store.Live(); objects != 4 {
		t.Errorf("%d keys open", objects)
	}
	m.Close()
	if objects, _ := store.Live(); objects != 0 {
		t.Errorf("%d keys open after close", objects)
	}
}
