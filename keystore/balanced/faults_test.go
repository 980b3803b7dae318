//go:build cgo && !nopkcs11

package balanced_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/balanced"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// A world is a store over two tokens whose modules fail on command, with a key of each
// kind and what it computes.
type world struct {
	*balanced.Store
	tokens  [3]*softhsm.Token // the last has other keys
	modules [2]*hsmtest.Module
	log     *lines

	provisioned, sealed keystore.MAC
	signer              crypto.Signer
	tags                [2][]byte
}

// lines are those of a log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newWorld(t *testing.T, c balanced.Config, own hsm.Config) *world {
	t.Helper()
	w := &world{log: &lines{}}
	w.tokens[0], w.tokens[1], w.tokens[2] = clones(t)
	c.Log = slog.New(slog.NewTextHandler(w.log, nil))
	for i := range w.modules {
		w.modules[i] = separate(t, w.tokens[i])
		c.Tokens = append(c.Tokens, in(w.tokens[i], w.modules[i], own))
	}
	w.Store = open(t, c)
	var err error
	if w.provisioned, err = keystore.Find[keystore.MAC](w, "mac"); err == nil {
		w.signer, err = keystore.Find[crypto.Signer](w, "sign")
	}
	if err == nil {
		w.sealed, err = sealedKey(w.Store)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.sealed.Close() })
	for i, k := range []keystore.MAC{w.provisioned, w.sealed} {
		if w.tags[i], err = k.Sum(nil); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func sealedKey(s keystore.Store) (keystore.MAC, error) {
	k, err := s.Generate(keystore.HMACSHA256)
	if err == nil {
		_, err = s.Seal(k, []byte("context"))
	}
	if err != nil {
		return nil, err
	}
	return k.(keystore.MAC), nil
}

// works asks the keys for what they computed before, and makes new ones, so often that
// each token would have been asked.
func (w *world) works(t *testing.T) {
	t.Helper()
	hash := sha256.Sum256(nil)
	for range 3 {
		for i, k := range []keystore.MAC{w.provisioned, w.sealed} {
			if tag, err := k.Sum(nil); err != nil || !bytes.Equal(tag, w.tags[i]) {
				t.Fatalf("key %d: %x, %v", i, tag, err)
			}
		}
		if _, err := w.signer.Sign(nil, hash[:], crypto.SHA256); err != nil {
			t.Fatal(err)
		}
		k, err := sealedKey(w)
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// await waits until so many tokens can be used. That one cannot be used any more shows when it is
// used, which one that counts as slow, as on a busy machine, is only after a while.
func (w *world) await(t *testing.T, usable int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		n := 0
		for _, c := range w.Conditions() {
			if c.Usable {
				n++
			}
		}
		if n == usable {
			return
		}
		if n > usable {
			w.provisioned.Sum(nil)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%d tokens can be used, not %d:\n%s", n, usable, w.log)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// TestLost takes one token away, and then the other. Keys that are sealed or provisioned
// go on without an error.
func TestLost(t *testing.T) {
	w := newWorld(t, balanced.Config{}, hsm.Config{})
	for i := range w.modules {
		for _, fault := range []hsmtest.Fault{
			{Removed: true, Token: w.tokens[i].Label},
			{Code: pkcs11.CKR_DEVICE_ERROR},
		} {
			w.modules[i].Inject(fault)
			w.works(t)
			w.await(t, 1)
			w.works(t)
			w.modules[i].Clear()
			w.await(t, 2)
			w.works(t)
		}
	}
	for _, want := range []string{`"token lost" token=` + w.tokens[0].Label, `"token back" token=` + w.tokens[1].Label} {
		if !strings.Contains(w.log.String(), want) {
			t.Errorf("the log does not say %s:\n%s", want, w.log)
		}
	}
}

// TestHang has a token hang: what hangs there is done on the other, and it comes back.
func TestHang(t *testing.T) {
	w := newWorld(t, balanced.Config{Limit: 300 * time.Millisecond}, hsm.Config{CallTimeout: 200 * time.Millisecond, Wait: time.Second})
	w.modules[0].Inject(hsmtest.Fault{Function: "C_Sign", Hang: true})
	w.works(t)
	w.await(t, 1)
	w.works(t)
	w.modules[0].Clear()
	w.await(t, 2)
	w.works(t)
}

// TestAllLost has no token left, and then one again.
func TestAllLost(t *testing.T) {
	w := newWorld(t, balanced.Config{}, hsm.Config{})
	for i, m := range w.modules {
		m.Inject(hsmtest.Fault{Removed: true, Token: w.tokens[i].Label})
	}
	if _, err := w.provisioned.Sum(nil); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("without a token: %v", err)
	}
	w.await(t, 0)
	w.modules[1].Clear()
	w.await(t, 1)
	w.works(t)
}

// TestReplaced replaces a token by another one of the same name and serial number: it
// has other keys, and is not used.
func TestReplaced(t *testing.T) {
	w := newWorld(t, balanced.Config{}, hsm.Config{})
	w.modules[0].Inject(hsmtest.Fault{Token: w.tokens[0].Label, Replace: w.tokens[2].Label, SameLabel: true, SameSerial: true})
	w.works(t)
	w.await(t, 1)
	w.works(t)
	w.modules[0].Clear()
	w.await(t, 2)
	w.works(t)
}

// TestSwapped has the two tokens swap their slots while both are in use, and swap them back,
// again and again: both are used again before a sleep of a second ends that begins with it. On
// a busy machine that may fail, but not each time.
func TestSwapped(t *testing.T) {
	w := newWorld(t, balanced.Config{}, hsm.Config{})
	swapped := []hsmtest.Fault{{Token: w.tokens[0].Label, Replace: w.tokens[1].Label}}
	stop := w.inUse(t)
	defer stop()
	var inTime [2]int
	for turn := range 6 { // so many recoveries have no pause between them
		for _, m := range w.modules {
			m.Inject(swapped[turn%2:]...)
		}
		slept := time.After(time.Second)
		for i := range w.modules {
			w.answers(t, i)
		}
		select {
		case <-slept:
		default:
			inTime[turn%2]++
		}
	}
	if inTime[0] == 0 || inTime[1] == 0 {
		t.Errorf("of 3 times each, it took less than a second %d times, and back %d times:\n%s", inTime[0], inTime[1], w.log)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// answers waits until a token is used and has answered.
func (w *world) answers(t *testing.T, i int) {
	t.Helper()
	before := w.modules[i].Counters().Calls["C_Sign"]
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if w.Conditions()[i].Usable && w.modules[i].Counters().Calls["C_Sign"] > before+8 {
			return
		}
	}
	t.Fatalf("token %d does not answer:\n%s", i, w.log)
}

// inUse has keys used by several callers until it is stopped. The error is that of a wrong
// answer.
func (w *world) inUse(t *testing.T) (stop func() error) {
	t.Helper()
	var all sync.WaitGroup
	done, wrong := make(chan struct{}), make(chan error, 4)
	for range 4 {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				for i, k := range []keystore.MAC{w.provisioned, w.sealed} {
					tag, err := k.Sum(nil)
					if err == nil && !bytes.Equal(tag, w.tags[i]) || errors.Is(err, keystore.ErrLost) {
						wrong <- fmt.Errorf("key %d: %x, %v", i, tag, err)
						return
					}
				}
			}
		})
	}
	return sync.OnceValue(func() error {
		close(done)
		all.Wait()
		close(wrong)
		return <-wrong
	})
}

// TestQueue has one token take longer: the other gets most of the work.
func TestQueue(t *testing.T) {
	w := newWorld(t, balanced.Config{}, hsm.Config{})
	w.modules[0].Inject(hsmtest.Fault{Function: "C_Sign", Delay: 20 * time.Millisecond})
	before := w.modules[1].Counters().Calls["C_Sign"]
	var left atomic.Int64
	left.Store(400)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := w.provisioned.Sum(nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	slow := uint64(w.modules[0].Counters().Fired)
	quick := w.modules[1].Counters().Calls["C_Sign"] - before
	if quick < 3*slow {
		t.Errorf("the quick token did %d operations, the slow one %d", quick, slow)
	}
}

// TestSlow has one token take much longer, for one caller: nearly everything is done on the other.
func TestSlow(t *testing.T) {
	w := newWorld(t, balanced.Config{}, hsm.Config{})
	w.modules[0].Inject(hsmtest.Fault{Delay: 2 * time.Millisecond})
	var made [2]uint64
	for i, m := range w.modules {
		made[i] = m.Counters().Calls["C_GenerateKey"]
	}
	for range 40 {
		k, err := sealedKey(w)
		if err == nil {
			_, err = k.Sum(nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		k.Close()
	}
	for i, m := range w.modules {
		made[i] = m.Counters().Calls["C_GenerateKey"] - made[i]
	}
	if made[0] > 10 || made[1] < 30 {
		t.Errorf("the slow token made %d keys, the other %d", made[0], made[1])
	}
}
