package identity

import (
	"context"
	"crypto/sha256"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// TestPossession certifies keys of a TPM by its AK, and shows them to the
// authority under other names, uses, and data.
func TestPossession(t *testing.T) {
	ctx := context.Background()
	o := newOffice(t, accepting())
	mine, other := newHolder(t, o), newHolder(t, o)
	qualifying := sha256.Sum256([]byte("of the exchange"))
	storage, decryption := mine.storage(t), mine.decryption(t)
	for _, c := range []struct {
		what string
		name string
		use  enroll.Use
		key  certifiable
		want error
	}{
		{"a storage key", mine.name, enroll.Storage, storage, nil},
		{"a decryption key", mine.name, enroll.Decryption, decryption, nil},
		{"a storage key to decrypt", mine.name, enroll.Decryption, storage, ErrKey},
		{"a decryption key to store", mine.name, enroll.Storage, decryption, ErrKey},
		{"no use", mine.name, 0, storage, ErrKey},
		{"an identity key to store", mine.name, enroll.Storage, mine.identity(t), ErrKey},
		{"an identity key to decrypt", mine.name, enroll.Decryption, mine.identity(t), ErrKey},
		{"another device", other.name, enroll.Storage, storage, ErrSignature},
		{"an unknown device", "nobody", enroll.Storage, storage, enroll.ErrUnknown},
		{"no name", "", enroll.Storage, storage, enroll.ErrUnknown},
	} {
		attest, signature, err := mine.Certify(c.key.lend, qualifying[:])
		if err != nil {
			t.Fatal(err)
		}
		certified := func(area, attest, signature, qualifying []byte) error {
			return o.Certified(ctx, c.name, c.use, area, attest, signature, qualifying)
		}
		checkError(t, certified(c.key.area, attest, signature, qualifying[:]), c.want)
		if c.want != nil {
			continue
		}
		checkError(t, certified(c.key.area, attest, signature, nil), ErrNonce)
		checkError(t, certified(c.key.area, attest, signature, qualifying[:31]), ErrNonce)
		checkError(t, certified(other.storage(t).area, attest, signature, qualifying[:]), either(c.use == enroll.Storage, ErrAttestation, ErrKey))
		for n := range len(c.key.area) {
			checkError(t, certified(c.key.area[:n], attest, signature, qualifying[:]), ErrKey)
		}
		for n := range len(attest) {
			checkError(t, certified(c.key.area, attest[:n], signature, qualifying[:]), ErrSignature)
		}
		for n := range len(signature) {
			checkError(t, certified(c.key.area, attest, signature[:n], qualifying[:]), ErrSignature)
		}
	}
}

func either(yes bool, a, b error) error {
	if yes {
		return a
	}
	return b
}

// A holder is an enrolled device, and its name.
type holder struct {
	*Device
	name string
}

func newHolder(t *testing.T, o *office) *holder {
	t.Helper()
	h := &holder{Device: ready(t, connect(t, tpmtest.Start(t)), newPath(t))}
	err := h.Enroll(context.Background(), o.exchange, nil)
	if err != nil {
		t.Fatal(err)
	}
	if h.name, _, err = h.Credentials(); err != nil {
		t.Fatal(err)
	}
	return h
}

// A certifiable key is lent by its store.
type certifiable struct {
	area []byte
	lend func(func(transport.TPM, tpm2.NamedHandle) error) error
}

func (h *holder) storage(t *testing.T) certifiable {
	t.Helper()
	p, err := h.store.NewImportParent()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return certifiable{p.Public(), p.With}
}

func (h *holder) decryption(t *testing.T) certifiable {
	t.Helper()
	k, err := h.store.Generate(keystore.RSADecrypt2048)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	c := certifiable{lend: func(f func(transport.TPM, tpm2.NamedHandle) error) error { return h.store.With(k, f) }}
	err = c.lend(func(chip transport.TPM, key tpm2.NamedHandle) error {
		r, err := tpm2.ReadPublic{ObjectHandle: key.Handle}.Execute(chip)
		if err == nil {
			c.area = r.OutPublic.Bytes()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (h *holder) identity(t *testing.T) certifiable {
	t.Helper()
	keys := saved(t, h.Device)
	k := keys.file.state.Keys[0]
	return certifiable{k.Public, func(f func(transport.TPM, tpm2.NamedHandle) error) error {
		return keys.do(func(chip transport.TPM) error {
			return keys.use(chip, k, func(key tpm2.NamedHandle) error { return f(chip, key) })
		})
	}}
}
