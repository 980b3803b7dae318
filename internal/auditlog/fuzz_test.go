package auditlog_test

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"os"
	"slices"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/auditlog"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// recorded returns a log of an earlier time, and its key. Logs are kept for years: what is
// verified today must verify for ever.
func recorded(t testing.TB) (text []byte, keys map[string]crypto.PublicKey) {
	t.Helper()
	text, err := os.ReadFile("testdata/log.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile("testdata/key.pem")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(key)
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	id, err := keystore.KeyID(public)
	if err != nil {
		t.Fatal(err)
	}
	return text, map[string]crypto.PublicKey{id: public}
}

func TestRecorded(t *testing.T) {
	text, keys := recorded(t)
	r, err := auditlog.VerifyText(text, keys, nil)
	if err != nil || len(r.Findings) > 0 || r.Logs[0].Records != 8 || !r.Logs[0].Stopped {
		t.Errorf("%+v, %v", r, err)
	}
}

// FuzzVerify wants no file but the log itself to verify as the whole of it.
func FuzzVerify(f *testing.F) {
	whole, keys := recorded(f)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add(slices.Concat(whole, whole))
	f.Add([]byte(`{"n":1,"time":"2026-01-01T00:00:00Z","event":"file"}` + "\n"))
	r, err := auditlog.VerifyText(whole, keys, nil)
	if err != nil {
		f.Fatal(err)
	}
	last, err := auditlog.ParsePosition(r.Logs[0].Last)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := auditlog.VerifyText(text, keys, []auditlog.Position{last})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Findings) == 0 && len(text) <= len(whole) && string(text) != string(whole) {
			t.Errorf("another file verifies: %q", text)
		}
		auditlog.ReadEnd(text)
	})
}
