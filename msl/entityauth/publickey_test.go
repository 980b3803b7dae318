package entityauth_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// TestByKey has an entity known to a peer by its public key, and to no other one.
func TestByKey(t *testing.T) {
	for name, fresh := range map[string]func() (crypto.Signer, error){
		"RSA": func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) },
		"ECC": func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) },
	} {
		t.Run(name, func(t *testing.T) {
			key, err := fresh()
			if err != nil {
				t.Fatal(err)
			}
			own, err := entityauth.ByKey("camera", key)
			if err != nil {
				t.Fatal(err)
			}
			credentials, err := own.Credentials(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			peer, err := entityauth.Known("camera", key.Public())
			if err != nil || own.Scheme() != name || peer.Scheme() != name {
				t.Fatal(own, peer, err)
			}
			sender, release, err := peer.Open(t.Context(), credentials.AuthData)
			if err != nil || sender.Identity != "camera" {
				t.Fatal(sender, err)
			}
			release()
			other, err := entityauth.Known("other", key.Public())
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := other.Open(t.Context(), credentials.AuthData); err == nil {
				t.Error("known as another")
			}
		})
	}
	public, private, _ := ed25519.GenerateKey(rand.Reader)
	if own, err := entityauth.ByKey("camera", private); own != nil || err == nil {
		t.Errorf("%v, %v", own, err)
	}
	if peer, err := entityauth.Known("camera", public); peer != nil || err == nil {
		t.Errorf("%v, %v", peer, err)
	}
}
