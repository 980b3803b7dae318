package serverside

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/auditlog"
)

// A sometimesSigner signs only while it may.
type sometimesSigner struct {
	crypto.Signer
	away atomic.Bool
}

var errAway = errors.New("C_Sign: CKR_DEVICE_REMOVED")

func (s *sometimesSigner) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	if s.away.Load() {
		return nil, errAway
	}
	return s.Signer.Sign(r, digest, o)
}

// A trustingState revokes nobody.
type trustingState struct{ serverState }

func (trustingState) Revoked(context.Context, string, string) error { return nil }

// TestAuditRequired refuses messages while the audit log fails, and takes them again.
func TestAuditRequired(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer := &sometimesSigner{Signer: key}
	log, err := auditlog.Open(auditlog.Config{Path: filepath.Join(t.TempDir(), "audit"), Signer: signer})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	a := audit{log: log, required: true}
	state := auditedState{trustingState{}, log}
	for _, away := range []bool{false, true, false} {
		signer.away.Store(away)
		log.Record(auditlog.Record{Event: "message"})
		if err := log.Reopen(nil); err != nil { // with a checkpoint
			t.Fatal(err)
		}
		err := state.Revoked(context.Background(), "camera", "")
		verdict := a.check()[0].Verdict
		if away != errors.Is(err, errUnaudited) || away != errors.Is(err, errAway) || away != (verdict == Failure) {
			t.Errorf("the key is away: %t; message: %v; readiness: %s", away, err, verdict)
		}
	}
	a.required = false
	signer.away.Store(true)
	log.Record(auditlog.Record{Event: "message"})
	log.Reopen(nil)
	if v := a.check()[0].Verdict; v != Warning {
		t.Errorf("without need: %s", v)
	}
	signer.away.Store(false)
}
