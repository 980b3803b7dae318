//go:build cgo && !nopkcs11

package cli_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
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

func newHandler(store keystore.Store, state *bolt.Server) (http.Handler, error) {
	identity, err := keystore.Find[crypto.Signer](store, "msl-identity")
	if err != nil {
		return nil, err
	}
	local, errLocal := entityauth.ByKey("server", identity)
	issuer, errIssuer := msl.FindIssuer(store, "server", keystore.DefaultPrefix)
	psk := &entityauth.PSK{Directory: state, Store: store}
	return &mslhttp.Handler{Handle: greet, Server: &msl.Server{
		Name: "server", Local: local, Issuer: issuer, State: state, Directory: state,
		Peers:        []msl.EntityScheme{psk, &entityauth.RSA{Directory: state}},
		Users:        []msl.UserScheme{&userauth.EmailPassword{Verify: state.Verify, Find: state.FindUser}},
		KeyExchanges: []msl.Responder{&keyx.SymmetricResponder{Store: store, PSK: psk}, &keyx.AsymmetricWrapped{Store: store}},
	}}, errors.Join(errLocal, errIssuer)
}

func greet(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
	if !m.Encrypted {
		return msl.ErrResponseRequiresEncryption // the device comes back with a key exchange
	}
	_, err := fmt.Fprintf(w, "hello %s", m.Identity)
	return err
}

// And here it ends. The client of docs/library.md begins here.

func newClient(device keystore.Store, key crypto.Signer, url string, server crypto.PublicKey) (*msl.Client, error) {
	local, errLocal := entityauth.ByKey("camera", key)
	peer, errPeer := entityauth.Known("server", server)
	return &msl.Client{
		Local: local, Peers: []msl.EntityScheme{peer},
		KeyExchanges: []msl.Offerer{&keyx.AsymmetricWrapped{Store: device}},
		Transport:    &mslhttp.Transport{URL: url},
	}, errors.Join(errLocal, errPeer)
}

func ask(ctx context.Context, client *msl.Client, question string) (string, error) {
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
	client := newDevice(t, device, server.URL, store, state)
	defer client.Close()
	if answer, err := ask(context.Background(), client, "?"); err != nil || answer != "hello camera" {
		t.Errorf("got %q, %v", answer, err)
	}
}

// newDevice registers a device with an RSA key.
func newDevice(t *testing.T, device *soft.Store, url string, store *hsm.Store, s *bolt.Server) *msl.Client {
	t.Helper()
	own, err := device.Create("own", keystore.RSASign2048)
	if err != nil {
		t.Fatal(err)
	}
	signer := own.Key.(crypto.Signer)
	id, err := keystore.KeyID(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AddEntity(state.EntityRecord{Identity: "camera", Scheme: "RSA", KeyID: id, PublicKey: pkix(t, signer)}); err != nil {
		t.Fatal(err)
	}
	theirs, err := keystore.Find[crypto.Signer](store, "msl-identity")
	if err != nil {
		t.Fatal(err)
	}
	client, err := newClient(device, signer, url, theirs.Public())
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func pkix(t *testing.T, signer crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}
