package hsm_test

import (
	"crypto/rand"
	"crypto/rsa"
	"os"
	"sync"
)

// soak reports whether the long tests are enabled.
func soak() bool { return os.Getenv("MSL_SOAK") != "" }

// peerKey is a peer's public key.
var peerKey = sync.OnceValue(func() *rsa.PublicKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return &k.PublicKey
})
