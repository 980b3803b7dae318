package serverside

import (
	"context"
	"fmt"
	"log/slog"
	"maps"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// A ring is a group of keys whose versions belong together.
type ring struct {
	*msl.Versions
	labels []string
}

// rings are those with which this server makes tokens.
func rings(s *Service) []ring {
	return []ring{
		{s.MSL.Issuer.Versions, keys.Labels(s.prefix, keystore.RoleIssuerEncryption, keystore.RoleIssuerMAC)},
		{s.services, keys.Labels(s.prefix, keystore.RoleServiceEncryption, keystore.RoleServiceMAC)},
	}
}

// choose makes the versions in use those of a rotation: the newest, unless it is pending.
func choose(s *Service, r state.Rotation) error {
	chosen := func(label string) uint32 {
		if r.Pending() {
			return r.Former[label]
		}
		return 0
	}
	for _, of := range rings(s) {
		number := chosen(of.labels[0])
		for _, label := range of.labels {
			number = min(number, chosen(label))
		}
		of.Choose(number)
	}
	changing, ok := s.Store.(keystore.Changing)
	if !ok {
		return nil
	}
	for _, label := range keys.Labels(s.prefix, keystore.SealingRoles()...) {
		if err := changing.SealWith(label, chosen(label)); err != nil {
			return err
		}
	}
	return nil
}

// chooseNow is choose for the newest rotation.
func chooseNow(s *Service) error {
	r, err := s.State.Rotation(context.Background())
	if err != nil {
		return err
	}
	retire(s, r)
	return choose(s, r)
}

// retire makes versions that were retired open nothing.
func retire(s *Service, r state.Rotation) {
	for _, of := range rings(s) {
		of.Since(r.Least[of.labels[1]])
	}
}

// lost returns what is called when a version of keys is gone that was not retired.
func (s *base) lost(of *msl.Versions, keys string, log *slog.Logger) func(version uint32, used bool) {
	return func(version uint32, used bool) {
		level := slog.LevelWarn
		if used {
			level = slog.LevelError
		}
		log.Log(context.Background(), level, "the key store no longer has a version of the "+keys+" keys: what it protects cannot be opened anymore, and devices that need that begin new sessions",
			"version", version, "in_use_now", of.All()[0].Version)
		s.keysLost.Store(true)
	}
}

// look finds the versions that a rotation made, and no longer any others.
func look(s *Service, r state.Rotation) error {
	if err := keys.Refresh(s.Store); err != nil {
		return err
	}
	for _, of := range rings(s) {
		if err := of.Refresh(); err != nil {
			return err
		}
	}
	if r.Step == state.StepDone {
		return nil // they were there: what is missing by now was destroyed
	}
	for label, number := range r.Versions {
		ring, err := s.Store.Lookup(label)
		if err != nil {
			return err
		}
		if ring[0].Number < number {
			return fmt.Errorf("key %q has no version %d here yet", label, number)
		}
	}
	return nil
}

// follow does what a rotation requires.
func follow(s *Service, r state.Rotation) error {
	retire(s, r)
	if r.Step == state.StepAnnounced {
		return choose(s, r)
	}
	if err := look(s, r); err != nil {
		return err
	}
	if err := choose(s, r); err != nil {
		return err
	}
	forget(s, r)
	if s.Devices == nil || r.Step != state.StepUsed && r.Step != state.StepDone {
		return nil
	}
	return s.Devices.Records.Renew(context.Background()) // the state is authenticated again by each change
}

// forget ends the sessions that need versions which no longer open anything. The others
// are opened again from the tokens of their devices.
func forget(s *Service, r state.Rotation) {
	if !maps.Equal(s.least, r.Least) {
		s.least = r.Least
		s.MSL.Forget()
	}
}
