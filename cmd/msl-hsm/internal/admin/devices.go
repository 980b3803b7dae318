package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/state/etcd"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	devices "github.com/msl-hsm/msl-hsm/tpm/enroll/etcd"
)

// ServeDevices opens the existing records of devices, for a server.
func ServeDevices(c *config.Config, s *State, store keys.Store, log *slog.Logger) (*keys.Authority, error) {
	records, err := openRecords(c, store, authkv.Adopt, devices.Open)
	if err != nil {
		return nil, err
	}
	if f, ok := records.(*enroll.File); ok {
		tellVerdict(log, c.Server.Enrollment.File(), keystore.RoleEnrollmentsMark, f.Verdict, c)
	}
	return keys.OpenAuthority(c, s.Server, records, store)
}

// openDevices opens them for a command. They are authenticated with the keys with which
// the state was opened.
func openDevices(c *config.Config, s *State, store keys.Store) (*keys.Authority, error) {
	authenticating := store
	if s.store != nil {
		authenticating = s.store
	}
	records, err := openRecords(c, authenticating, authkv.Judge, devices.Administer)
	if err != nil {
		return nil, err
	}
	return keys.OpenAuthority(c, s.Server, records, store)
}

// CheckEnrollments reads all records of devices, and counts them by state. No server may have
// their file open.
func CheckEnrollments(c *config.Config, s *State) (map[enroll.State]int, error) {
	if err := findEnrollments(c); err != nil {
		return nil, err
	}
	records, err := openRecords(c, s.store, authkv.Judge, devices.Administer)
	if err != nil {
		return nil, err
	}
	found, err := records.Check()
	return found, errors.Join(err, records.Close())
}

func openRecords(c *config.Config, store keys.Store, trust authkv.Trust, open func(context.Context, devices.Config) (*devices.Records, error)) (keys.Records, error) {
	if !c.Server.Enrollment.Shared() {
		return openEnrollmentFile(c, store, trust)
	}
	at, err := clusterOf(c, store)
	if err != nil {
		return nil, err
	}
	r, err := open(context.Background(), devicesAt(at))
	switch {
	case errors.Is(err, devices.ErrEmpty):
		return nil, exit.WithCode(exit.OfKind(fs.ErrNotExist, "no enrollments %s: correct prefix and endpoints, or restore a backup; if no device has enrolled yet, run msl-hsm state init", placeOfEnrollments(c)), exit.Usage)
	case errors.Is(err, devices.ErrForged):
		return nil, fmt.Errorf("the enrollments %s cannot be used: restore a backup of etcd, and find out who else can write there: %w", placeOfEnrollments(c), err)
	case err != nil:
		return nil, err
	}
	return r, nil
}

// openEnrollmentFile opens the file, which a key in the store authenticates. Without a
// store, the file must not be authenticated.
func openEnrollmentFile(c *config.Config, store keys.Store, trust authkv.Trust) (*enroll.File, error) {
	path := c.Server.Enrollment.File()
	r := &Keys{c: c, store: store}
	f, err := r.enrollments(trust).Open(path)
	return f, errors.Join(unusableEnrollments(err), r.Close())
}

// unusableEnrollments adds what to do to the error about a file of enrollments.
func unusableEnrollments(err error) error {
	switch {
	case errors.Is(err, authkv.ErrUnsigned):
		return fmt.Errorf("%w: restore a backup, and find out who else can write there; if it dates from before files were authenticated, and you know that it is right, run msl-hsm state sign", err)
	case errors.Is(err, authkv.ErrOtherKey):
		return fmt.Errorf("%w: if it was used with another key store, correct keystore; else restore a backup, and find out who else can write there; if you replaced the key yourself, run msl-hsm state sign", err)
	case errors.Is(err, enroll.ErrForged):
		return fmt.Errorf("%w: restore a backup, and find out who else can write there", err)
	}
	return err
}

// devicesAt returns where the records of devices are in a cluster: beside the state.
func devicesAt(s etcd.Config) devices.Config {
	return devices.Config{
		Endpoints: s.Endpoints, Prefix: devices.Beside(s.Prefix), TLS: s.TLS, Roots: s.Roots, User: s.User, Password: s.Password,
		Key: s.Key, Staleness: s.Staleness,
	}
}

func placeOfEnrollments(c *config.Config) string {
	if c.Server.Enrollment.Shared() {
		return fmt.Sprintf("%s in etcd at %s", devices.Beside(c.Server.State.Prefix), strings.Join(c.Server.State.Etcd, ", "))
	}
	return c.Server.Enrollment.File()
}

func makeSharedEnrollments(r *Keys) (made bool, err error) {
	return makeIn(r, func(at etcd.Config) error { return devices.Create(context.Background(), devicesAt(at)) })
}
