package hsm_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// A program signs with a key that never leaves its token. It makes the key when it
// runs for the first time.
func Example() {
	store, err := hsm.Open(hsm.Config{
		URI: "pkcs11:token=production?module-path=/usr/lib/vendor/pkcs11.so",
		PIN: "credential:pin", // of a systemd unit
	})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	key, err := keystore.Find[crypto.Signer](store, "signing")
	if errors.Is(err, keystore.ErrNotFound) {
		if _, err = store.Create("signing", keystore.ECDSAP256); err == nil {
			key, err = keystore.Find[crypto.Signer](store, "signing")
		}
	}
	if err != nil {
		log.Fatal(err)
	}
	digest := sha256.Sum256([]byte("a message"))
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%x\n", signature)
}

// A report of what a module does, as a set-up command prints it before keys are
// made. A store whose module fails one of the checks opens only if the check is
// named in AllowWeak.
func ExampleStore_Probe() {
	store, err := hsm.Open(hsm.Config{URI: os.Getenv("TOKEN_URI"), PIN: "prompt"})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	report, err := store.Probe()
	if err != nil {
		log.Fatal(err)
	}
	for _, check := range report {
		fmt.Println(check.Name, check.OK, check.Detail)
	}
}

// Tokens lists what a module has, as URIs for Open.
func ExampleTokens() {
	tokens, err := hsm.Tokens("/usr/lib/softhsm/libsofthsm2.so")
	if err != nil {
		log.Fatal(err)
	}
	for _, uri := range tokens {
		fmt.Println(uri.String())
	}
}

func ExampleParseURI() {
	uri, err := hsm.ParseURI("pkcs11:token=My%20token;serial=0a1b?module-path=/usr/lib/pkcs11.so")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(uri.Token, uri.Serial, uri.ModulePath)

	_, err = hsm.ParseURI("pkcs11:token=dev?pin-value=1234")
	fmt.Println(err)
	// Output:
	// My token 0a1b /usr/lib/pkcs11.so
	// hsm: URI has a pin-value: secrets do not belong in a URI, use pin-source=file:/path
}
