package cli

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/internal/plainfile"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// A transcript is what was done in a ceremony.
type transcript struct {
	Title     string          `json:"title"`
	DryRun    bool            `json:"dry_run,omitempty"` // on a token that was thrown away
	Operator  string          `json:"operator"`
	Witnesses []string        `json:"witnesses"`
	Program   build           `json:"program"`
	Host      string          `json:"host"`
	Plan      string          `json:"plan_sha256"` // of the file of the ceremony
	Token     ceremonyToken   `json:"token"`
	Began     time.Time       `json:"began"`
	Continued []time.Time     `json:"continued,omitempty"` // after it was interrupted
	Ended     time.Time       `json:"ended"`
	Keys      []ceremonyEntry `json:"keys"` // the first signs this
}

// A ceremonyToken is what the module reports about the token.
type ceremonyToken struct {
	URI          string `json:"uri"`
	Label        string `json:"label"`
	Serial       string `json:"serial"`
	Model        string `json:"model"`
	Manufacturer string `json:"manufacturer"`
	ModuleSHA256 string `json:"module_sha256"` // of the library
}

// A ceremonyEntry is a key as reported by the token.
type ceremonyEntry struct {
	Made time.Time `json:"made"`
	keystore.Info
	PublicKey  string `json:"public_key,omitempty"`  // PEM
	CheckValue string `json:"check_value,omitempty"` // of a secret key; see docs/ceremony.md
}

// A signedTranscript is the content of a transcript file.
type signedTranscript struct {
	Transcript json.RawMessage `json:"transcript"`
	Signature  []byte          `json:"signature"` // ECDSA on P-256 over SHA-256 of the compact form
}

// signTranscript writes a transcript to a file that must not exist yet.
func signTranscript(path string, t *transcript, signer crypto.Signer) error {
	raw, err := json.Marshal(t)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(raw)
	signature, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return fmt.Errorf("sign the transcript: %w", err)
	}
	text, err := json.MarshalIndent(signedTranscript{raw, signature}, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Create(path, append(text, '\n'), 0o644)
}

// verifyTranscript reads a transcript, and checks its signature with the key that it
// contains. Witnesses compare the hash of that key.
func verifyTranscript(path string) (*transcript, string, error) {
	text, err := plainfile.Read(path)
	if err != nil {
		return nil, "", exit.Usagef("%w; name the file of a transcript", err)
	}
	return readTranscript(path, text)
}

// readTranscript is verifyTranscript for a file already read.
func readTranscript(path string, text []byte) (*transcript, string, error) {
	var signed signedTranscript
	var t transcript
	var compact bytes.Buffer
	err := json.Unmarshal(text, &signed)
	if err == nil {
		err = errors.Join(json.Compact(&compact, signed.Transcript), json.Unmarshal(signed.Transcript, &t))
	}
	if err != nil || len(t.Keys) == 0 {
		return nil, "", exit.Usagef("%s is not a transcript of a ceremony: name the file that msl-hsm ceremony wrote", path)
	}
	block, _ := pem.Decode([]byte(t.Keys[0].PublicKey))
	if block == nil {
		return nil, "", fmt.Errorf("%s names no key that signed it", path)
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, "", fmt.Errorf("%s: the key that signed it: %w", path, err)
	}
	key, ok := public.(*ecdsa.PublicKey)
	digest := sha256.Sum256(compact.Bytes())
	if !ok || key.Curve != elliptic.P256() || !ecdsa.VerifyASN1(key, digest[:], signed.Signature) || !onlySigned(text, &signed) {
		return nil, "", fmt.Errorf("the signature of %s is wrong: it was changed, or is of another key; compare it with the copies of the witnesses", path)
	}
	hash := sha256.Sum256(block.Bytes)
	return &t, hex.EncodeToString(hash[:]), nil
}

// onlySigned reports whether a file contains only a transcript and its signature: another
// member, or a repeated one, would be read by people although it is not signed.
func onlySigned(text []byte, signed *signedTranscript) bool {
	var all bytes.Buffer
	again, err := json.Marshal(signed)
	return err == nil && json.Compact(&all, text) == nil && bytes.Equal(all.Bytes(), again)
}

// checkText is the text of check values.
const checkText = "msl-hsm ceremony: check"

// checkValue shows whether two secret keys are the same, and nothing about them: the
// first four bytes of what they compute from a fixed text. It is empty for keys that only
// wrap.
func checkValue(k keystore.Key) (string, error) {
	var b []byte
	var err error
	switch k := k.(type) {
	case keystore.MAC:
		b, err = keystore.ConfirmedSum(k, []byte(checkText))
	case keystore.Cipher:
		b, err = k.Encrypt(make([]byte, 16), []byte(checkText))
	}
	return hex.EncodeToString(b[:min(len(b), 4)]), err
}
