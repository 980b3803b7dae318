package keyx_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"io"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/identity"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// An office enrols every device, and knows its attestation keys.
type office struct{ *enroll.Authority }

func newOffice(t testing.TB) office {
	t.Helper()
	file := must[*enroll.File](t)(enroll.OpenFile(filepath.Join(t.TempDir(), "records")))
	t.Cleanup(func() { file.Close() })
	a, err := enroll.NewAuthority(enroll.Config{Records: file, Policy: enroll.Policy{Monitor: true}})
	return office{must[*enroll.Authority](t)(a, err)}
}

func (o office) Certified(ctx context.Context, identity string, use keyx.TPMUse, c keyx.TPMCertified, qualifying []byte) error {
	uses := map[keyx.TPMUse]enroll.Use{keyx.TPMStorage: enroll.Storage, keyx.TPMDecrypt: enroll.Decryption}
	return o.Authority.Certified(ctx, identity, uses[use], c.Public, c.Attest, c.Signature, qualifying)
}

func (office) Duplicate(storage []byte, a keystore.Algorithm, raw []byte) (keystore.Duplicated, error) {
	return tpm.Duplicate(storage, a, raw)
}

func (office) EncryptOAEP(public, raw []byte) ([]byte, error) {
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		return nil, err
	}
	key, err := tpm2.Pub(*area)
	if err != nil {
		return nil, err
	}
	return rsa.EncryptOAEP(sha1.New(), rand.Reader, key.(*rsa.PublicKey), raw, nil)
}

// A chip is the TPM of an enrolled device, which makes keys for exchanges.
type chip struct {
	power    *tpmtest.TPM
	device   *tpm.Device
	store    *tpm.Store
	identity *identity.Device
	state    string
	name     string
	commands *atomic.Int64 // that the TPM was sent
}

// newChip enrols a TPM, one without AES with the quirk for that.
func newChip(t testing.TB, o office, quirk tpmtest.Quirk) *chip {
	t.Helper()
	c := &chip{power: tpmtest.Start(t), state: filepath.Join(t.TempDir(), "keys"), commands: new(atomic.Int64)}
	dial := c.power.Quirky(func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
		c.commands.Add(1)
		if quirk != nil {
			return quirk(command, send)
		}
		return send(command)
	})
	c.open(t, dial, (*tpm.Device).InitStore)
	ctx := context.Background()
	if err := c.identity.Init(ctx, identity.InitOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.identity.Enroll(ctx, o.Handle, nil); err != nil {
		t.Fatal(err)
	}
	var err error
	if c.name, _, err = c.identity.Credentials(); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *chip) open(t testing.TB, dial func() (io.ReadWriteCloser, error), open func(*tpm.Device, tpm.StoreConfig) (*tpm.Store, error)) {
	t.Helper()
	c.device = must[*tpm.Device](t)(tpm.NewDevice(dial, time.Minute))
	t.Cleanup(func() { c.device.Close() })
	c.store = must[*tpm.Store](t)(open(c.device, tpm.StoreConfig{State: c.state}))
	t.Cleanup(func() { c.store.Close() })
	c.identity = must[*identity.Device](t)(identity.Open(c.store, c.state+".identity"))
}

// restart ends the process of the device, and starts it again.
func (c *chip) restart(t testing.TB) {
	t.Helper()
	c.store.Close()
	c.device.Close()
	c.open(t, c.power.Dial, (*tpm.Device).OpenStore)
}

// isEmpty looks for keys that were left in the store and in the TPM.
func (c *chip) isEmpty(t testing.TB) {
	t.Helper()
	if objects, sessions := c.store.Live(); objects+sessions > 0 {
		t.Errorf("%d objects and %d sessions are left in the store", objects, sessions)
	}
	c.store.Close()
	err := c.device.Do(func(chip transport.TPM) error {
		// The connection keeps one session; saved ones and objects must be gone.
		for first, most := range map[uint32]int{0x02000000: 1, 0x03000000: 0, 0x80000000: 0} {
			answer, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: 64}.Execute(chip)
			if err != nil {
				return err
			}
			if left, err := answer.CapabilityData.Data.Handles(); err != nil || len(left.Handle) > most {
				t.Errorf("left in the TPM: %v, %v", left, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func (c *chip) NewParent() (keyx.TPMParent, error) {
	p, err := c.store.NewImportParent()
	if err != nil {
		return nil, err
	}
	return &parent{p, c}, nil
}

type parent struct {
	*tpm.ImportParent
	c *chip
}

func (p *parent) Certify(qualifying []byte) (attest, signature []byte, err error) {
	return p.c.identity.Certify(p.With, qualifying)
}

func (c *chip) NewDecrypter() (keyx.TPMDecrypter, error) {
	k, err := c.store.Generate(keystore.RSADecrypt2048)
	if err != nil {
		return nil, err
	}
	return &decrypter{k, c}, nil
}

type decrypter struct {
	keystore.Key
	c *chip
}

func (d *decrypter) lend(f func(transport.TPM, tpm2.NamedHandle) error) error {
	return d.c.store.With(d.Key, f)
}

func (d *decrypter) Public() (area []byte) {
	d.lend(func(chip transport.TPM, key tpm2.NamedHandle) error {
		r, err := tpm2.ReadPublic{ObjectHandle: key.Handle}.Execute(chip)
		if err == nil {
			area = r.OutPublic.Bytes()
		}
		return err
	})
	return area
}

func (d *decrypter) Certify(qualifying []byte) (attest, signature []byte, err error) {
	return d.c.identity.Certify(d.lend, qualifying)
}

func (d *decrypter) DecryptOAEP(ciphertext []byte) ([]byte, error) {
	return d.Key.(crypto.Decrypter).Decrypt(nil, ciphertext, &rsa.OAEPOptions{Hash: crypto.SHA1})
}

// A witness is a store that remembers the bytes it was given.
type witness struct {
	*soft.Store
	raw [][]byte
}

func (w *witness) Import(a keystore.Algorithm, raw []byte) (keystore.Key, error) {
	w.raw = append(w.raw, append([]byte(nil), raw...))
	return w.Store.Import(a, raw)
}

// A pair is both sides of the exchange.
type pair struct {
	*chip
	office    office
	server    *witness
	responder *keyx.TPMResponder
	asker     *keyx.TPMOfferer
	outside   *soft.Store
	from      msl.Requester
}

func newPair(t testing.TB, quirk tpmtest.Quirk) *pair {
	t.Helper()
	o := newOffice(t)
	p := &pair{chip: newChip(t, o, quirk), office: o, server: &witness{Store: soft.New()}}
	t.Cleanup(func() { p.server.Close() })
	p.responder = &keyx.TPMResponder{Store: p.server, Verifier: o}
	p.asker = &keyx.TPMOfferer{Store: p.store, Device: p.chip}
	if !p.device.Capabilities().EncryptDecrypt {
		p.outside = soft.New()
		t.Cleanup(func() { p.outside.Close() })
		p.asker.Outside = p.outside
	}
	p.from = msl.Requester{Identity: p.name, Custody: msl.CustodyImported, MessageID: 42, Time: time.Now()}
	return p
}

func (p *pair) offer(t testing.TB) msl.Offer {
	t.Helper()
	o := must[msl.Offer](t)(p.asker.Offer(context.Background(), p.from))
	t.Cleanup(func() { o.Close() })
	return o
}

// exchange goes through with it.
func (p *pair) exchange(t testing.TB) (outcome msl.Outcome, server *msl.SessionKeys, response []byte) {
	t.Helper()
	o := p.offer(t)
	server, response, err := p.responder.Respond(context.Background(), p.from, o.KeyData())
	if err != nil {
		t.Fatal(err)
	}
	outcome, err = o.Accept(context.Background(), response)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	return outcome, server, response
}
