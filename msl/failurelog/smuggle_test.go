package failurelog

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

// secrets lists what must not get out.
func secrets() []string {
	key := make([]byte, 16)
	rand.Read(key)
	return []string{string(key), "837492017731", "ada@example.com", "transfer of 300 to account 0815", "correct horse", "/home/ada/keys", "camera of ada"}
}

// forms are the ways in which a secret could be written.
func forms(secret string) []string {
	b := []byte(secret)
	return []string{secret, hex.EncodeToString(b), base64.RawStdEncoding.EncodeToString(b), base64.RawURLEncoding.EncodeToString(b), url.QueryEscape(secret), fmt.Sprintf("%q", secret)}
}

// providerErrors returns the real errors of the packages, with a secret instead of
// everything that an application names.
func providerErrors(t *testing.T, secret string) []error {
	t.Helper()
	store := soft.New()
	defer store.Close()
	var all []error
	note := func(err error) {
		t.Helper()
		if err == nil {
			t.Error("no error came")
		}
		all = append(all, err)
	}
	_, err := store.Lookup(secret)
	note(err)
	note(store.Destroy(secret, 1))
	_, err = store.Import(keystore.AES128CBC, append([]byte(secret), secret...))
	note(err)
	k, err := store.Generate(keystore.AES128CBC)
	if err != nil {
		t.Fatal(err)
	}
	_, err = k.(keystore.Cipher).Decrypt(make([]byte, 16), []byte(secret))
	note(err)
	_, err = store.Unseal(keystore.AES128CBC, []byte(secret), []byte(secret))
	note(err)
	_, err = msl.ParseMasterToken([]byte(secret))
	note(err)
	_, err = (&msl.Client{Local: &entityauth.NoneEntity{Identity: "x"}, Transport: &direct{fail: errAway}}).Do(context.Background(), &msl.Request{User: secret})
	note(err)
	_, err = (&msl.Client{Local: &entityauth.NoneEntity{Identity: "x"}, Transport: &direct{fail: errAway}, KeyExchanges: []msl.Offerer{&keyx.AsymmetricWrapped{Store: store}}}).
		Do(context.Background(), &msl.Request{Encrypted: true, User: secret})
	note(err)
	return all
}

// fileErrors returns the errors of a key file whose path and passphrase are secret.
func fileErrors(t *testing.T, secret string) []error {
	t.Helper()
	dir := filepath.Join(t.TempDir(), url.PathEscape(secret))
	_, missing := soft.Open(filepath.Join(dir, "none"), []byte(secret))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file, err := soft.Create(filepath.Join(dir, "keys"), []byte("something else"))
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	_, wrong := soft.Open(filepath.Join(dir, "keys"), []byte(secret))
	if missing == nil || wrong == nil {
		t.Errorf("no error came: %v, %v", missing, wrong)
	}
	return []error{missing, wrong}
}

// wrappedErrors returns errors of every kind with the secret wherever it can be placed.
func wrappedErrors(secret string) []error {
	var all []error
	for _, c := range causeTable {
		all = append(all, fmt.Errorf("hsm: C_Login(%s): CKR_%s CKR_PIN_INCORRECT %s: %w", secret, secret, secret, c.err),
			fmt.Errorf("hsm: key %q version %d: %w", secret, 7, c.err),
			fmt.Errorf("hsm: key %q version %s: %w", "x", secret, c.err),
			fmt.Errorf("tpm: TPM2_%s: TPM_RC_%s: %w", secret, secret, c.err),
			fmt.Errorf("%s: %w", secret, fmt.Errorf("soft: %s: %w", secret, c.err)),
			errors.Join(errors.New(secret), c.err, errors.New(secret)))
	}
	for _, code := range msl.Codes() {
		all = append(all, msl.Failure(code, secret, errors.New(secret)),
			&msl.PeerError{Identity: secret, Code: code, Message: secret, User: secret},
			fmt.Errorf("%s: %w", secret, &msl.PeerError{Identity: secret, Code: code, Response: msl.ResponseCode(4), Message: "CKR_DEVICE_ERROR " + secret}))
	}
	return all
}

// TestNothingGetsOut shows a reporter errors that are full of secrets, and searches
// every byte sent or stored for them.
func TestNothingGetsOut(t *testing.T) {
	bubble(t, func(b *bench) {
		b.config.Spool = filepath.Join(b.TempDir(), "spool")
		var out []byte
		secrets := secrets()
		for n, secret := range secrets {
			r := b.start()
			b.server.setFail(errAway)
			failures := append(providerErrors(b.T, secret), wrappedErrors(secret)...)
			if n == 1 { // a slow one
				failures = append(failures, fileErrors(b.T, secret)...)
			}
			for _, err := range failures {
				r.Observe(err)
			}
			if err := r.Close(); err != nil {
				b.Error(err)
			}
			spooled, err := os.ReadFile(b.config.Spool)
			if err != nil {
				b.Fatal(err)
			}
			out = append(out, spooled...)
			b.server.setFail(nil)
			b.start().Close()
		}
		for _, message := range b.server.sent {
			out = append(out, layers(message)...)
		}
		log, err := os.ReadFile(b.log)
		if err != nil {
			b.Fatal(err)
		}
		out = append(out, log...)
		if n := len(records(b, b.log)); n < 50 {
			b.Errorf("only %d records arrived: the test shows little", n)
		}
		for _, secret := range secrets {
			for _, form := range forms(secret) {
				if bytes.Contains(out, []byte(form)) {
					b.Errorf("%q is in what was sent or stored", form)
				}
			}
		}
	})
}
