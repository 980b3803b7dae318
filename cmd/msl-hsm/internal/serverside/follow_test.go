package serverside

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// busyRecords cannot be written for a while.
type busyRecords struct {
	keys.Records
	fails, tried int
}

func (r *busyRecords) Renew(context.Context) error {
	if r.tried++; r.tried <= r.fails {
		return errors.New("no space left on device")
	}
	return nil
}

// TestLapsed has a version of the key destroyed while the state cannot be written: it is
// authenticated with another one as soon as it can be, since nothing could check it after a restart.
func TestLapsed(t *testing.T) {
	l, _ := begun(t)
	s, records := l.Service(), &busyRecords{fails: 2}
	s.Devices = &keys.Authority{Records: records}
	defer func() { s.Devices = nil }()
	var said strings.Builder
	f := &follower{live: l, id: "this server"}
	s.keysLost.Store(true)
	for range 5 {
		if err := f.step(t.Context(), slog.New(slog.NewTextHandler(&said, nil)), true); err != nil {
			t.Fatal(err)
		}
	}
	if records.tried != 3 || strings.Count(said.String(), "level=ERROR") != 1 {
		t.Errorf("tried %d times: %s", records.tried, said.String())
	}
}

// TestKeysGone checks that a server without a key that issues says what to do.
func TestKeysGone(t *testing.T) {
	for _, gone := range []error{keystore.ErrNotFound, msl.ErrVersionsApart} {
		s := &Service{base: &base{}, MSL: &msl.Server{Issuer: &msl.Issuer{}}, heartbeat: heartbeat{sum: func([]byte) ([]byte, error) { return nil, gone }}}
		if c := s.checkKeyStore(t.Context()); c.Verdict != Failure || !strings.Contains(c.Detail, keys.MakeServerKeys) {
			t.Errorf("%v: %v", gone, c)
		}
	}
}
