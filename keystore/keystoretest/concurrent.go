package keystoretest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/msl-hsm/msl-hsm/keystore"
)

const goroutines = 64

// concurrency are the tests of a store that many goroutines use.
type concurrency struct{ *suite }

// together runs f in many goroutines and reports what each returns.
func together(t T, f func() error) {
	t.Helper()
	var group sync.WaitGroup
	for range goroutines {
		group.Go(func() {
			if err := f(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

func (s concurrency) testConcurrent(t T) {
	t.Run("one-cipher", s.testOneCipher)
	t.Run("one-mac", s.testOneMAC)
	t.Run("churn", func(t T) { together(t, s.churn) })
	t.Run("seal-once", s.testSealOnce)
	t.Run("close-in-use", s.testCloseInUse)
	t.Run("close-store-in-use", s.testCloseStoreInUse)
}

func (s concurrency) testOneCipher(t T) {
	k := s.generate(t, keystore.AES128CBC).(keystore.Cipher)
	together(t, func() error {
		for n := range 25 {
			iv, plaintext := random(16), random(n*40)
			ciphertext, err := k.Encrypt(iv, plaintext)
			if err != nil {
				return err
			}
			back, err := k.Decrypt(iv, ciphertext)
			if err != nil {
				return err
			}
			if string(back) != string(plaintext) {
				return errors.New("one goroutine got the plaintext of another")
			}
		}
		return nil
	})
}

func (s concurrency) testOneMAC(t T) {
	k := s.generate(t, keystore.HMACSHA256).(keystore.MAC)
	var want [25]string
	for n := range want {
		tag, err := k.Sum(make([]byte, n))
		if err != nil {
			t.Fatal(err)
		}
		want[n] = string(tag)
	}
	together(t, func() error {
		for n := range want {
			tag, err := k.Sum(make([]byte, n))
			if err != nil {
				return err
			}
			if string(tag) != want[n] {
				return fmt.Errorf("tag of %d bytes changed", n)
			}
		}
		return nil
	})
}

// churn is the life of session keys.
func (s concurrency) churn() error {
	for range 4 {
		k, err := s.store.Generate(keystore.HMACSHA256)
		if err != nil {
			return err
		}
		want, err := k.(keystore.MAC).Sum(nil)
		if err != nil {
			return err
		}
		blob, err := s.store.Seal(k, nil)
		if err != nil {
			return err
		}
		if err := k.Close(); err != nil {
			return err
		}
		u, err := s.store.Unseal(keystore.HMACSHA256, blob, nil)
		if err != nil {
			return err
		}
		got, err := u.(keystore.MAC).Sum(nil)
		if err := errors.Join(err, u.Close()); err != nil {
			return err
		}
		if string(got) != string(want) {
			return errors.New("unsealed another key")
		}
	}
	return nil
}

func (s concurrency) testSealOnce(t T) {
	k := s.generate(t, keystore.HMACSHA256)
	var sealed atomic.Int32
	together(t, func() error {
		_, err := s.store.Seal(k, nil)
		if err == nil {
			sealed.Add(1)
		} else if !errors.Is(err, keystore.ErrLocked) {
			return err
		}
		return nil
	})
	if n := sealed.Load(); n != 1 {
		t.Errorf("the key was sealed %d times", n)
	}
}

// testCloseInUse closes a key that others use: they get right answers until
// they get ErrClosed.
func (s concurrency) testCloseInUse(t T) {
	k := s.generate(t, keystore.HMACSHA256).(keystore.MAC)
	tag, err := k.Sum(nil)
	if err != nil {
		t.Fatal(err)
	}
	want := string(tag)
	var sums atomic.Int32
	together(t, func() error {
		for {
			tag, err := k.Sum(nil)
			if errors.Is(err, keystore.ErrClosed) {
				return nil
			}
			if err != nil {
				return err
			}
			if string(tag) != want {
				return errors.New("a key that was closed meanwhile gave a wrong tag")
			}
			if sums.Add(1) == 4*goroutines {
				if err := k.Close(); err != nil {
					return err
				}
			}
		}
	})
	_, err = k.Sum(nil)
	is(t, "sum with a closed key", err, keystore.ErrClosed)
}

func (s concurrency) testCloseStoreInUse(t T) {
	store := s.open(t)
	var made atomic.Int32
	together(t, func() error {
		for {
			k, err := store.Generate(keystore.HMACSHA256)
			if err == nil {
				_, err = k.(keystore.MAC).Sum(nil)
			}
			if errors.Is(err, keystore.ErrClosed) {
				return nil
			}
			if err != nil {
				return err
			}
			if made.Add(1) == 2*goroutines {
				if err := store.Close(); err != nil {
					return err
				}
			}
		}
	})
	isEmpty(t, store)
}
