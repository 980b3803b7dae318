//go:build cgo && !nopkcs11

package cli_test

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
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// The example of the README begins here.

func newHandler(store *hsm.Store, state *bolt.Server) (http.Handler, error) {
	identity, err := keystore.Find[crypto.Signer](store, "msl-identity")
	if err != nil {
		return nil, err
	}
	keyID, err := keystore.KeyID(identity.Public())
	if err != nil {
		return nil, err
	}
	encryption, err := keystore.Find[keystore.Cipher](store, "msl-issuer-encryption")
	if err != nil {
		return nil, err
	}
	mac, err := keystore.Find[keystore.MAC](store, "msl-issuer-mac")
	if err != nil {
		return nil, err
	}
	psk := &entityauth.PSK{Directory: state, Store: store}
	server := &msl.Server{
		Name:  "server",
		Local: &entityauth.RSAEntity{Identity: "server", KeyID: keyID, Key: identity},
		Peers: []msl.EntityScheme{psk, &entityauth.RSA{Directory: state}},
		Users: []msl.UserScheme{&userauth.EmailPassword{Verify: state.Verify, Find: state.FindUser}},
		KeyExchanges: []msl.Responder{
			&keyx.SymmetricResponder{Store: store, PSK: psk},
			&keyx.AsymmetricWrapped{Store: store},
		},
		Issuer: &msl.Issuer{Name: "server", Store: store, Keys: []msl.IssuerKeys{{
			Version:    1,
			Encryption: encryption,
			MAC:        mac,
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

// And here it ends. The client of docs/library.md begins here.

func newClient(device keystore.Store, key crypto.Signer, server crypto.PublicKey) *msl.Client {
	return &msl.Client{
		Local:        &entityauth.RSAEntity{Identity: "camera", KeyID: "own", Key: key},
		Peers:        []msl.EntityScheme{&entityauth.RSA{Directory: peer{server}}},
		KeyExchanges: []msl.Offerer{&keyx.AsymmetricWrapped{Store: device}},
	}
}

// A peer is the directory of a client that knows one server.
type peer struct{ key crypto.PublicKey }

func (p peer) Entity(context.Context, string) (*msl.Entity, error) {
	keyID, err := keystore.KeyID(p.key)
	return &msl.Entity{Identity: "server", Scheme: "RSA", KeyID: keyID, PublicKey: p.key}, err
}

func ask(ctx context.Context, client *msl.Client, url, question string) (string, error) {
	client.Transport = &mslhttp.Transport{URL: url}
	answer, err := client.Do(ctx, &msl.Request{
		Encrypted: true, Authenticated: true, Recipient: "server",
		Body: msl.BytesBody([]byte(question)),
	})
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body) // an error where the answer broke off
	return string(text), err
}

// The client ends here.

// TestReadmeExample compares the examples with the pages that show them.
func TestReadmeExample(t *testing.T) {
	source := readText(t, "readme_example_test.go")
	for page, part := range map[string]struct{ begin, end string }{
		"README.md":       {"// The example of the README begins here.\n\n", "\n// And here it ends."},
		"docs/library.md": {"The client of docs/library.md begins here.\n\n", "\n// The client ends here."},
	} {
		_, example, _ := strings.Cut(source, part.begin)
		example, _, found := strings.Cut(example, part.end)
		_, block, _ := strings.Cut(readText(t, "../../../../"+page), "```go\n")
		if !found || !strings.HasPrefix(block, example+"```\n") {
			t.Errorf("the example in %s is not the one in this file", page)
		}
	}
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
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
	device := soft.New()
	defer device.Close()
	client := newDevice(t, device, store, state)
	defer client.Close()
	if answer, err := ask(context.Background(), client, server.URL, "?"); err != nil || answer != "hello camera" {
		t.Errorf("got %q, %v", answer, err)
	}
}

// newDevice registers a device with an RSA key.
func newDevice(t *testing.T, device *soft.Store, store *hsm.Store, s *bolt.Server) *msl.Client {
	t.Helper()
	own, err := device.Create("own", keystore.RSASign2048)
	if err != nil {
		t.Fatal(err)
	}
	signer := own.Key.(crypto.Signer)
	if err := s.AddEntity(state.EntityRecord{Identity: "camera", Scheme: "RSA", KeyID: "own", PublicKey: pkix(t, signer)}); err != nil {
		t.Fatal(err)
	}
	theirs, err := keystore.Find[crypto.Signer](store, "msl-identity")
	if err != nil {
		t.Fatal(err)
	}
	return newClient(device, signer, theirs.Public())
}

func pkix(t *testing.T, signer crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}
