package tpm_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
)

// A program makes its keys in the TPM when it first runs, and signs with one.
func Example() {
	c := tpm.Config{URI: "tpm:?device=/dev/tpmrm0&state=/var/lib/example/tpm.keys"}
	store, err := tpm.OpenStore(c)
	if errors.Is(err, keystore.ErrNotFound) {
		store, err = tpm.Init(c)
	}
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	versions, err := store.Lookup("signing")
	if errors.Is(err, keystore.ErrNotFound) {
		versions = make([]keystore.Version, 1)
		versions[0], err = store.Create("signing", keystore.ECDSAP256)
	}
	if err != nil {
		log.Fatal(err)
	}
	digest := sha256.Sum256([]byte("a message"))
	signature, err := versions[0].Key.(crypto.Signer).Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%x\n", signature)
}
