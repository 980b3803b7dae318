package hsm_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/ThalesIgnite/crypto11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// TestSecondOpinion lets crypto11 find and use the key pairs that this package
// made. It finalizes the module under everyone when it is closed, and does not
// start where the module is initialized, so it has a process of its own.
func TestSecondOpinion(t *testing.T) {
	if os.Getenv("SECOND_OPINION_LABEL") != "" {
		t.Skip("this is the other process")
	}
	s, token := newStore(t)
	pin, err := os.ReadFile(strings.TrimPrefix(string(token.PIN), "file:"))
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("signed"))
	for _, a := range []keystore.Algorithm{keystore.RSASign2048, keystore.ECDSAP256, keystore.ECDSAP384} {
		t.Run(a.String(), func(t *testing.T) {
			v, err := s.Create(a.String(), a)
			if err != nil {
				t.Fatal(err)
			}
			signature, err := v.Key.(crypto.Signer).Sign(rand.Reader, digest[:], crypto.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			other := exec.Command(os.Args[0], "-test.run=^TestOtherProcess$")
			other.Env = append(os.Environ(), "SECOND_OPINION_LABEL="+a.String(), "SECOND_OPINION_TOKEN="+token.Label,
				"SECOND_OPINION_MODULE="+token.Module, "SECOND_OPINION_PIN="+string(pin), "SECOND_OPINION_SIGNATURE="+hex.EncodeToString(signature))
			out, err := other.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			_, line, _ := bytes.Cut(out, []byte("signature "))
			line, _, _ = bytes.Cut(line, []byte("\n"))
			theirs, err := hex.DecodeString(string(line))
			if err != nil || !verifies(v.Key.(crypto.Signer).Public(), digest[:], theirs) {
				t.Errorf("the signature of the other does not verify: %v\n%s", err, out)
			}
		})
	}
}

func verifies(public crypto.PublicKey, digest, signature []byte) bool {
	if p, ok := public.(*rsa.PublicKey); ok {
		return rsa.VerifyPKCS1v15(p, crypto.SHA256, digest, signature) == nil
	}
	p, ok := public.(*ecdsa.PublicKey)
	return ok && ecdsa.VerifyASN1(p, digest, signature)
}

// TestOtherProcess is the second opinion.
func TestOtherProcess(t *testing.T) {
	label := os.Getenv("SECOND_OPINION_LABEL")
	if label == "" {
		t.Skip("started by TestSecondOpinion")
	}
	c, err := crypto11.Configure(&crypto11.Config{
		Path: os.Getenv("SECOND_OPINION_MODULE"), TokenLabel: os.Getenv("SECOND_OPINION_TOKEN"), Pin: os.Getenv("SECOND_OPINION_PIN"),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	k, err := c.FindKeyPair(nil, []byte(label))
	if err != nil || k == nil {
		t.Fatalf("no key %s: %v", label, err)
	}
	digest := sha256.Sum256([]byte("signed"))
	ours, err := hex.DecodeString(os.Getenv("SECOND_OPINION_SIGNATURE"))
	if err != nil || !verifies(k.Public(), digest[:], ours) {
		t.Errorf("the first signature does not verify: %v", err)
	}
	theirs, err := k.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout.WriteString("signature " + hex.EncodeToString(theirs) + "\n")
}
