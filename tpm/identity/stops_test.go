package identity

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// errStop stands for kill -9.
var errStop = errors.New("stopped")

// A stopper is a TPM that stops the program at the n-th command that makes a key
// or uses one. Until it is started again no command passes.
type stopper struct{ left atomic.Int64 }

const running = 1 << 40

func (s *stopper) command(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
	switch tpm2.TPMCC(tpmtest.Command(command)) {
	case tpm2.TPMCCCreatePrimary, tpm2.TPMCCCreate, tpm2.TPMCCLoad, tpm2.TPMCCActivateCredential, tpm2.TPMCCCertify, tpm2.TPMCCSign:
		s.left.Add(-1)
	}
	if s.left.Load() < 0 {
		return nil, errStop
	}
	return send(command)
}

// TestStops stops the program at every use of the TPM and at every message, each
// time before and after, and starts it again. In the end the device has one identity, and
// no half-done step has left a trace.
func TestStops(t *testing.T) {
	ctx := context.Background()
	var s stopper
	s.left.Store(running)
	chip, err := tpm.NewDevice(tpmtest.Start(t).Quirky(s.command), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { chip.Close() })
	o := newOffice(t, enroll.Policy{HoldChanged: true, Monitor: false})
	path := newPath(t)
	phases := []struct {
		name string
		run  func(d *Device, x Exchange) error
	}{
		{"init", func(d *Device, _ Exchange) error { return d.Init(ctx, InitOptions{}, nil) }},
		{"enroll", func(d *Device, x Exchange) error { return d.Enroll(ctx, x, nil) }},
		{"renew", func(d *Device, x Exchange) error { return d.Renew(ctx, x, nil) }},
	}
	var id enroll.ID
	for i, phase := range phases {
		done := false
		for n := 0; !done; n++ {
			if n > 50 {
				t.Fatalf("%s never ends", phase.name)
			}
			d := openDevice(t, chip, path)
			s.left.Store(int64(n))
			err := phase.run(d, stopAt(o.exchange, n))
			s.left.Store(running)
			if err != nil && !errors.Is(err, errStop) {
				t.Fatalf("%s, stopped at %d: %v", phase.name, n, err)
			}
			if err != nil && strings.Contains(err.Error(), "TPM command 0x") {
				t.Errorf("%s, stopped at %d: a command without its name: %v", phase.name, n, err)
			}
			done = err == nil
			if phase.name == "renew" && !done {
				checkIdentity(t, openDevice(t, chip, path), o.c.Certificate, "box") // the old one
			}
			o.restart()
		}
		d := openDevice(t, chip, path)
		if i == 0 {
			id = idOf(t, d)
			if err := o.Approve(ctx, id, "box", ""); err != nil {
				t.Fatal(err)
			}
			continue
		}
		checkIdentity(t, d, o.c.Certificate, "box")
		o.verify(nil)
	}
	r := o.record(id)
	current := 0
	for _, k := range r.Keys {
		if k.Current {
			current++
		}
	}
	if len(r.Certificates) != 2 || current != 1 || r.State != enroll.Enrolled {
		t.Errorf("%d certificates, %d keys, %s", len(r.Certificates), current, r.State)
	}
	if files, err := filepath.Glob(path + "*"); err != nil || len(files) != 3 { // with the one of the store, and the lock
		t.Errorf("%v, %v", files, err)
	}
}

// stopAt stops before the n-th message is sent, or after it was answered.
func stopAt(exchange Exchange, n int) Exchange {
	sent := 0
	return func(ctx context.Context, request []byte) ([]byte, error) {
		before, after := sent, sent+1
		sent += 2
		if n == before {
			return nil, errStop
		}
		response, err := exchange(ctx, request)
		if n == after {
			return nil, errStop
		}
		return response, err
	}
}
