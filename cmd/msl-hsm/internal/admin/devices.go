package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/msl/state/etcd"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	devices "github.com/msl-hsm/msl-hsm/tpm/enroll/etcd"
)

// ServeDevices opens the records of devices, which must exist, for a server.
func ServeDevices(c *config.Config, s *State, store keys.Store) (*keys.Authority, error) {
	records, err := openRecords(c, store, devices.Open)
	if err != nil {
		return nil, err
	}
	return keys.OpenAuthority(c, s.Server, records, store)
}

// openDevices opens them for a command. Those in etcd are authenticated by the keys with
// which the state was opened.
func openDevices(c *config.Config, s *State, store keys.Store) (*keys.Authority, error) {
	authenticating := store
	if s.store != nil {
		authenticating = s.store
	}
	records, err := openRecords(c, authenticating, devices.Administer)
	if err != nil {
		return nil, err
	}
	return keys.OpenAuthority(c, s.Server, records, store)
}

func openRecords(c *config.Config, store keys.Store, open func(context.Context, devices.Config) (*devices.Records, error)) (keys.Records, error) {
	if !c.Server.Enrollment.Shared() {
		f, err := enroll.OpenFile(c.Server.Enrollment.File())
		if err != nil {
			return nil, err
		}
		return f, nil
	}
	at, err := clusterOf(c, store)
	if err != nil {
		return nil, err
	}
	r, err := open(context.Background(), devicesAt(at))
	switch {
	case errors.Is(err, devices.ErrEmpty):
		return nil, exit.Usagef("no enrollments %s: correct prefix and endpoints, or restore a backup; if no device has enrolled yet, run msl-hsm state init: %w", placeOfEnrollments(c), fs.ErrNotExist)
	case errors.Is(err, devices.ErrForged):
		return nil, fmt.Errorf("the enrollments %s cannot be used: restore a backup of etcd, and find out who else can write there: %w", placeOfEnrollments(c), err)
	case err != nil:
		return nil, err
	}
	return r, nil
}

// devicesAt returns where the records of devices are in a cluster: beside the state.
func devicesAt(s etcd.Config) devices.Config {
	return devices.Config{
		Endpoints: s.Endpoints, Prefix: devices.Beside(s.Prefix), TLS: s.TLS, User: s.User, Password: s.Password,
		Key: s.Key, Staleness: s.Staleness,
	}
}

// placeOfEnrollments names the place.
func placeOfEnrollments(c *config.Config) string {
	if c.Server.Enrollment.Shared() {
		return fmt.Sprintf("%s in etcd at %s", devices.Beside(c.Server.State.Prefix), strings.Join(c.Server.State.Etcd, ", "))
	}
	return c.Server.Enrollment.File()
}

func makeSharedEnrollments(c *config.Config) (made bool, err error) {
	return makeIn(c, func(at etcd.Config) error { return devices.Create(context.Background(), devicesAt(at)) })
}
