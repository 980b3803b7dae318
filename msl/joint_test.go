package msl_test

import (
	"bytes"
	"crypto/subtle"
	"encoding/base64"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

func (k faultyCipher) Joins(m keystore.MAC) bool {
	_, ok := m.(faultyMAC)
	return ok && k.f.joint
}

// OpenAll is one operation, and one more for each part that is decrypted.
func (k faultyCipher) OpenAll(m keystore.MAC, all []keystore.Opening) (opened int, err error) {
	if err := k.f.waited("OpenAll"); err != nil {
		return 0, err
	}
	for i := range all {
		o := &all[i]
		tag, err := m.(faultyMAC).mac.Sum(o.Data)
		if err != nil || subtle.ConstantTimeCompare(tag, o.Tag) != 1 {
			return i, keystore.ErrBadTag
		}
		plaintext, err := k.cipher.Decrypt(o.IV, o.Ciphertext)
		if err != nil {
			return i, err
		}
		o.Plaintext = append(o.Plaintext, plaintext...)
	}
	return len(all), nil
}

func (k faultyCipher) SealAll(m keystore.MAC, all []keystore.Sealing) error {
	if err := k.f.waited("SealAll"); err != nil {
		return err
	}
	for i := range all {
		s := &all[i]
		ciphertext, err := k.cipher.Encrypt(s.IV, s.Plaintext)
		if err != nil {
			return err
		}
		data := slices.Concat(s.Before, base64.StdEncoding.AppendEncode(nil, ciphertext), s.After)
		tag, err := m.(faultyMAC).mac.Sum(data)
		if err != nil {
			return err
		}
		s.Data, s.Tag = append(s.Data, data...), append(s.Tag, tag...)
	}
	return nil
}

// newJointBench makes a bench whose server does in one call what it can, with a client that
// holds a token, and returns a message of its, too.
func newJointBench(t *testing.T) (b *faultBench, message []byte) {
	b, message = newSlowBench(t)
	b.store.latency, b.store.joint = 0, true
	b.store.watch(nil)
	return b, message
}

// A short message is opened in one call, and answered in another one. What has not arrived
// with the header, or is sent before the end, takes one more.
func TestJointCalls(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(b *faultBench)
		want    []string
	}{
		"short":     {func(*faultBench) {}, []string{"OpenAll", "SealAll"}},
		"forgotten": {func(b *faultBench) { b.restart() }, []string{"Sum", "Decrypt", "Unseal msl master token", "Unseal msl master token", "OpenAll", "SealAll"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, _ := newJointBench(t)
				c.prepare(b)
				b.store.watch(nil)
				b.mustSend()
				if got := b.store.operations(); !slices.Equal(got, c.want) {
					t.Errorf("operations %v, want %v", got, c.want)
				}
			})
		})
	}
}

// Opening in one call changes no verdict: whatever is wrong with a message, the error
// is the one that comes first in the protocol.
func TestJointCallChangesNoVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, whole := newJointBench(t)
		chunk := bytes.LastIndex(whole, []byte(`{"payload"`))
		step := 13
		if raceDetector {
			step = 71
		}
		tried := [][]byte{whole, append(bytes.Clone(whole), whole[chunk:]...)}
		for i := 0; i < len(whole); i += step {
			one := bytes.Clone(whole)
			one[i] ^= 1 << (i % 8)
			tried = append(tried, one, whole[:i])
		}
		for i, message := range tried {
			b.store.joint = false
			want := b.outcomeOf(message)
			b.store.joint = true
			if got := b.outcomeOf(message); got.err != want.err || got.data != want.data || got.failed != want.failed || !slices.Equal(got.refused, want.refused) {
				t.Fatalf("message %d, %s: %+v, want %+v", i, message, got, want)
			}
		}
	})
}

// Either call fails, once or for good: the application never runs for a peer that is then
// asked to send the message again, and a failure that passes costs no answer once it ran.
func TestJointCallFails(t *testing.T) {
	for at := range 2 {
		for _, failure := range []error{keystore.ErrUnavailable, keystore.ErrLost, errDevice} {
			for _, once := range []bool{true, false} {
				synctest.Test(t, func(t *testing.T) {
					b, _ := newJointBench(t)
					b.inject(at, once, failure)
					err := b.send()
					switch {
					case b.ran > 1, b.ran == 1 && at == 1 && transient(err):
						t.Errorf("call %d fails with %v (once: %v): ran %d, %v", at, failure, once, b.ran, err)
					case once && slices.Contains(passing, failure) && err != nil:
						t.Errorf("call %d fails once with %v: %v", at, failure, err)
					case !once && err == nil:
						t.Errorf("call %d fails with %v, and there is an answer", at, failure)
					}
					b.store.joint = false
					b.checkUnharmed(t)
				})
			}
		}
	}
}

// A key protects the same data in one call as step by step, whatever its name.
func TestJointForm(t *testing.T) {
	f := newFaultyStore(t)
	cipher, mac := must(f.Generate(keystore.AES128CBC)).(keystore.Cipher), must(f.Generate(keystore.HMACSHA256)).(keystore.MAC)
	defer cipher.Close()
	defer mac.Close()
	for _, id := range []string{"", "server_1", `"ciphertext":"`, "ä\\"} {
		k := msl.SymmetricKey{KeyID: id, Encryption: cipher, MAC: mac}
		for _, size := range []int{1, 15, 16, 1000, 40000} {
			inside := bytes.Repeat([]byte{'x'}, size)
			f.joint = true
			data, signature, err := msl.SealIn(k, inside)
			if err != nil {
				t.Fatal(err)
			}
			f.joint = false
			if err := k.Verify(data, signature); err != nil {
				t.Errorf("%q, %d bytes: %v", id, size, err)
			}
			if got, err := k.Decrypt(data); err != nil || !bytes.Equal(got, inside) {
				t.Errorf("%q, %d bytes become %d: %v", id, size, len(got), err)
			}
		}
	}
}
