//go:build cgo && !nopkcs11

package main_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// The example of the README begins here.

func newHandler(store *hsm.Store, state *bolt.Server) (http.Handler, error) {
	identity, err := store.Lookup("msl-identity")
	if err != nil {
		return nil, err
	}
	encryption, err := store.Lookup("msl-issuer-encryption")
	if err != nil {
		return nil, err
	}
	mac, err := store.Lookup("msl-issuer-mac")
	if err != nil {
		return nil, err
	}
	psk := &entityauth.PSK{Directory: state, Store: store}
	server := &msl.Server{
		Name:     "server",
		Entity:   &entityauth.RSA{Identity: "server", KeyID: "key-1", Key: identity[0].Key.(crypto.Signer)},
		Entities: []msl.EntityScheme{psk, &entityauth.RSA{Directory: state}},
		Users:    []msl.UserScheme{&userauth.EmailPassword{Verify: state.Verify, Find: state.FindUser}},
		KeyExchanges: []msl.KeyExchange{
			&keyx.SymmetricWrapped{Store: store, PSK: psk},
			&keyx.AsymmetricWrapped{Store: store},
		},
		Issuer: &msl.Issuer{Name: "server", Store: store, Keys: []msl.IssuerKeys{{
			Version:    1,
			Encryption: encryption[0].Key.(keystore.Cipher),
			MAC:        mac[0].Key.(keystore.MAC),
		}}},
		State:     state,
		Directory: state,
	}
	return &mslhttp.Handler{Server: server, Handle: greet}, nil
}

func greet(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
	if !m.Encrypted {
		return msl.ErrResponseRequiresEncryption // the device comes back with a key exchange
	}
	_, err := fmt.Fprintf(w, "hello %s", m.Identity)
	return err
}

// And here it ends.

// TestReadmeExample compares the example with the README.
func TestReadmeExample(t *testing.T) {
	source, err := os.ReadFile("readme_example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(source), "// The example of the README begins here.\n\n")
	example, _, _ = strings.Cut(example, "\n// And here it ends.")
	if _, block, _ := strings.Cut(string(readme), "```go\n"); !strings.HasPrefix(block, example+"```\n") {
		t.Error("the example in README.md is not the one in this file")
	}
}

// TestReadmeServer runs the example, with a device that has an RSA key.
func TestReadmeServer(t *testing.T) {
	token := softhsm.Temp(t)
	store, err := hsm.Open(hsm.Config{URI: token.URI, PIN: token.PIN})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for label, algorithm := range map[string]keystore.Algorithm{
		"msl-identity": keystore.RSASign2048, "msl-issuer-encryption": keystore.AES128CBC, "msl-issuer-mac": keystore.HMACSHA256,
		"msl-seal-session": keystore.SealSession256, "msl-seal-wrapping": keystore.SealWrapping256, "msl-seal-mac": keystore.SealMAC256,
	} {
		if _, err := store.Create(label, algorithm); err != nil {
			t.Fatal(err)
		}
	}
	state, err := bolt.OpenServer(filepath.Join(t.TempDir(), "server.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	handler, err := newHandler(store, state)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	defer server.Close()
	if answer := ask(t, server.URL, store, state); answer != "hello camera" {
		t.Errorf("got %q", answer)
	}
}

// ask sends a message from an entity with an RSA key.
func ask(t *testing.T, url string, store *hsm.Store, state *bolt.Server) string {
	t.Helper()
	device := soft.New()
	defer device.Close()
	own, err := device.Create("own", keystore.RSASign2048)
	if err != nil {
		t.Fatal(err)
	}
	signer := own.Key.(crypto.Signer)
	if err := state.AddEntity(bolt.EntityRecord{Identity: "camera", Scheme: "RSA", KeyID: "own", PublicKey: pkix(t, signer)}); err != nil {
		t.Fatal(err)
	}
	theirs, err := store.Lookup("msl-identity")
	if err != nil {
		t.Fatal(err)
	}
	client := &msl.Client{
		Entity:       &entityauth.RSA{Identity: "camera", KeyID: "own", Key: signer},
		Peers:        []msl.EntityScheme{&entityauth.RSA{Directory: peer{theirs[0].Key.(crypto.Signer).Public()}}},
		KeyExchanges: []msl.KeyExchange{&keyx.AsymmetricWrapped{Store: device}},
		Transport:    &mslhttp.Transport{URL: url},
	}
	defer client.Close()
	response, err := client.Do(context.Background(), &msl.Request{Encrypted: true, Authenticated: true, Recipient: "server", Body: msl.BytesBody([]byte("?"))})
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

func pkix(t *testing.T, signer crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// A peer is the directory of a client that knows one server.
type peer struct{ key crypto.PublicKey }

func (p peer) Entity(context.Context, string) (*msl.Entity, error) {
	return &msl.Entity{Identity: "server", Scheme: "RSA", KeyID: "key-1", PublicKey: p.key}, nil
}
