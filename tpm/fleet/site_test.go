package fleet

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"io"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/identity"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// A site is a desk with its server: where devices enroll, and where they talk then.
type site struct {
	*desk
	own         msl.LocalEntity    // how the server proves its identity
	peers       []msl.EntityScheme // the server, as devices know it
	enroll, url string
	refused     []error // why devices were not enrolled
}

// known are entities by their identity.
type known map[string]*msl.Entity

func (k known) Entity(_ context.Context, identity string) (*msl.Entity, error) {
	if e := k[identity]; e != nil {
		return e, nil
	}
	return nil, keystore.ErrNotFound
}

func newSite(t testing.TB) *site {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own := &entityauth.ECCEntity{Identity: "server", KeyID: "1", Key: key}
	s := &site{desk: newDesk(t), own: own}
	s.peers = []msl.EntityScheme{&entityauth.ECC{Directory: known{
		"server": {Identity: "server", Scheme: "ECC", KeyID: "1", PublicKey: key.Public()},
	}}}
	endpoint, err := NewEndpoint(s.Authority, EndpointConfig{
		Name: "server", Local: own,
		Refused: func(_ context.Context, err error) { s.refused = append(s.refused, err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.enroll = serve(t, httptest.NewServer(endpoint), endpoint)
	server := s.server(own)
	s.url = serve(t, httptest.NewServer(&mslhttp.Handler{Server: server, Handle: echo}), server)
	return s
}

func serve(t testing.TB, h *httptest.Server, behind io.Closer) string {
	t.Cleanup(func() {
		h.Close()
		if err := behind.Close(); err != nil {
			t.Error(err)
		}
	})
	return h.URL
}

func echo(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
	_, err := io.Copy(w, m.Body)
	return err
}

// server accepts enrolled devices, and exchanges keys only with their TPMs.
func (s *site) server(own msl.LocalEntity) *msl.Server {
	store := soft.New()
	issuer, err := temporaryIssuer(store, "server", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &msl.Server{
		Name: "server", Local: own, Issuer: issuer, State: s.state, Directory: s.state,
		CountSince:   s.CountSince,
		Custody:      msl.CustodyImported,
		Peers:        []msl.EntityScheme{&entityauth.ECC{Directory: s.state}, s.certificates()},
		KeyExchanges: []msl.Responder{&keyx.TPMResponder{Store: store, Verifier: Verifier{s.Authority}}},
	}
}

func (s *site) certificates() X509 {
	roots := x509.NewCertPool()
	roots.AddCert(s.settings.Certificate)
	return X509{&entityauth.X509{Roots: roots, Directory: s.state}, s.Authority}
}

// A box is a device with a TPM.
type box struct {
	Device
	t       testing.TB
	hasAES  bool
	through identity.Exchange
}

func (s *site) box(quirk tpmtest.Quirk) *box {
	s.t.Helper()
	power := tpmtest.Start(s.t)
	dial := power.Dial
	if quirk != nil {
		dial = power.Quirky(quirk)
	}
	chip, err := tpm.NewDevice(dial, time.Minute)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { chip.Close() })
	b := &box{t: s.t, hasAES: chip.Capabilities().EncryptDecrypt}
	path := filepath.Join(s.t.TempDir(), "keys")
	if b.Store, err = chip.InitStore(tpm.StoreConfig{State: path}); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { b.Store.Close() })
	if b.Identity, err = identity.Open(b.Store, path+".identity"); err != nil {
		s.t.Fatal(err)
	}
	if err := b.Identity.Init(s.t.Context(), identity.InitOptions{}, nil); err != nil {
		s.t.Fatal(err)
	}
	client := NewClient(s.peers, &mslhttp.Transport{URL: s.enroll})
	s.t.Cleanup(func() { client.Close() })
	b.through = Exchange(client, "server")
	return b
}

// enrolled is a device that has been admitted.
func (s *site) enrolled(quirk tpmtest.Quirk) *box {
	s.t.Helper()
	b := s.box(quirk)
	if err := b.Identity.Enroll(s.t.Context(), b.through, nil); err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (b *box) name() string {
	b.t.Helper()
	name, _, err := b.Identity.Credentials()
	if err != nil {
		b.t.Fatal(err)
	}
	return name
}

func (b *box) credential() identity.Credential {
	b.t.Helper()
	_, all, err := b.Identity.Credentials()
	if err != nil {
		b.t.Fatal(err)
	}
	return all[0]
}

// byKey and byCertificate are how a device proves its identity.
func (b *box) byKey() msl.LocalEntity {
	own := b.credential()
	id, err := keystore.KeyID(own.Signer.Public())
	if err != nil {
		b.t.Fatal(err)
	}
	return &entityauth.ECCEntity{Identity: b.name(), KeyID: id, Key: own.Signer}
}

func (b *box) byCertificate() msl.LocalEntity {
	own := b.credential()
	return &entityauth.X509Entity{Certificate: own.Certificate, Key: own.Signer}
}

// client is a device that talks to the server with keys that only its TPM has, as far
// as the TPM can use them.
func (s *site) client(b *box, own msl.LocalEntity) *msl.Client {
	x := &keyx.TPMOfferer{Store: b.Store, Device: &b.Device}
	custody := msl.CustodySealed
	if !b.hasAES {
		x.Outside, custody = soft.New(), msl.CustodyImported
	}
	c := &msl.Client{
		Local: own, Peers: s.peers, Custody: custody, KeyExchanges: []msl.Offerer{x},
		Transport: &mslhttp.Transport{URL: s.url},
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

func (s *site) talks(c *msl.Client, want error) {
	s.t.Helper()
	r, err := c.Do(s.t.Context(), &msl.Request{Encrypted: true, Authenticated: true, Recipient: "server", Body: msl.BytesBody([]byte("hello"))})
	if err == nil {
		var text []byte
		if text, err = io.ReadAll(r.Body); err == nil && string(text) != "hello" {
			s.t.Errorf("the answer is %q", text)
		}
		r.Body.Close()
	}
	if !errors.Is(err, want) {
		s.t.Errorf("%v, want %v", err, want)
	}
}
