package cli

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// FuzzTranscript reads any file as the transcript of a ceremony. What is accepted is signed as a
// whole: no byte of it but white space can be another one.
func FuzzTranscript(f *testing.F) {
	good := sampleTranscript(f)
	f.Add(good)
	f.Add([]byte(`{"transcript":{"keys":[{}]},"signature":""}`))
	f.Add([]byte(`{"transcript":null,"signature":null}`))
	f.Add(bytes.Replace(good, []byte(`"title"`), []byte(`"title": "x", "title"`), 1))
	f.Fuzz(func(t *testing.T, text []byte) {
		read, hash, err := readTranscript("transcript.json", text)
		if err != nil {
			if read != nil || hash != "" {
				t.Errorf("%v, and yet something is read", err)
			}
			return
		}
		var compact, want bytes.Buffer
		if json.Compact(&compact, text) != nil || json.Compact(&want, good) != nil {
			t.Fatal("what is no JSON was accepted")
		}
		if len(hash) != 64 || len(read.Keys) == 0 {
			t.Errorf("hash %q, %d keys", hash, len(read.Keys))
		}
		ours := compact.Len() == want.Len() && bytes.Equal(compact.Bytes(), want.Bytes())
		if !ours && bytes.Contains(text, []byte(hash)) {
			t.Errorf("another file was accepted: %s", text)
		}
	})
}

// sampleTranscript is a transcript that is signed.
func sampleTranscript(t testing.TB) []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	entry := ceremonyEntry{Made: time.Unix(1700000000, 0).UTC(), Info: keystore.Info{Label: "ceremony", Algorithm: keystore.ECDSAP256},
		PublicKey: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))}
	path := filepath.Join(t.TempDir(), "transcript.json")
	made := &transcript{Title: "Keys", Operator: "Grace", Witnesses: []string{"Ada"}, Began: entry.Made, Ended: entry.Made, Keys: []ceremonyEntry{entry}}
	if err := signTranscript(path, made, key); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
