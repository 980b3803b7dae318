package keystore_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

// A session key is sealed: its store returns it to anyone who has the blob and the
// context, and to nobody as bytes.
func Example() {
	store := soft.New() // hsm.Open and tpm.OpenStore open keys in a device
	defer store.Close()
	key, err := store.Generate(keystore.HMACSHA256)
	if err != nil {
		log.Fatal(err)
	}
	before, err := key.(keystore.MAC).Sum([]byte("a message"))
	if err != nil {
		log.Fatal(err)
	}
	blob, err := store.Seal(key, []byte("session 7"))
	if err != nil {
		log.Fatal(err)
	}
	key.Close()

	again, err := store.Unseal(keystore.HMACSHA256, blob, []byte("session 7"))
	if err != nil {
		log.Fatal(err)
	}
	defer again.Close()
	after, err := again.(keystore.MAC).Sum([]byte("a message"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the same key:", string(before) == string(after))

	_, err = store.Unseal(keystore.HMACSHA256, blob, []byte("session 8"))
	fmt.Println(err)
	// Output:
	// the same key: true
	// soft: unseal hmac-sha256: keystore: blob was not sealed here for this use
}

// A program asks for the key that it needs as the interface that it uses.
func ExampleFind() {
	store := soft.New()
	defer store.Close()
	label := keystore.RoleIssuerMAC.Label("acme")
	if _, err := store.Create(label, keystore.RoleIssuerMAC.Algorithm()); err != nil {
		log.Fatal(err)
	}

	mac, err := keystore.Find[keystore.MAC](store, label)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(label, "is for", mac.Algorithm())

	_, err = keystore.Find[keystore.Cipher](store, label)
	fmt.Println(err, errors.Is(err, keystore.ErrWrongKey))
	_, err = keystore.Find[keystore.MAC](store, "absent")
	fmt.Println(err, errors.Is(err, keystore.ErrNotFound))
	// Output:
	// acme-issuer-mac is for hmac-sha256
	// keystore: key "acme-issuer-mac" is for hmac-sha256, which is not a keystore.Cipher: keystore: wrong kind of key true
	// soft: look up "absent": keystore: no such key true
}

// The ID of a key that both sides compute from its public half.
func ExampleKeyID() {
	block, _ := pem.Decode([]byte(knownPublic))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		log.Fatal(err)
	}
	id, err := keystore.KeyID(public)
	fmt.Println(id, err)
	// Output: 5a7a78cca4a0f420 <nil>
}
