package keys

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/plainfile"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
	"github.com/msl-hsm/msl-hsm/tpm/makers"
)

// EnrollmentPolicy reads which devices the operator admits.
func EnrollmentPolicy(e *config.Enrollment) (p enroll.Policy, err error) {
	if p.Bundle, err = makerRoots("ek-roots", e.EKRoots); err != nil {
		return p, err
	}
	if p.Devices, err = makerRoots("device-roots", e.Devices); err != nil {
		return p, err
	}
	p.AcceptExpired = e.Expired == config.VerdictAccept
	p.Allowed = map[enroll.ID]bool{}
	for _, text := range e.Allow {
		id, err := enroll.ParseID(text)
		if err != nil {
			return p, exit.Usagef("server.enrollment.allow: %w", err)
		}
		p.Allowed[id] = true
	}
	for _, kind := range e.EKKinds {
		k, err := EKKind("server.enrollment.ek-kinds", kind, enroll.EKKinds())
		if err != nil {
			return p, err
		}
		p.Kinds = append(p.Kinds, k)
	}
	switch e.Unknown {
	case "refuse":
		p.RefuseUnknown = true
	case "hold":
	default:
		return p, exit.Usagef("server.enrollment.unknown is %q: want hold or refuse", e.Unknown)
	}
	p.Monitor, p.HoldChanged = e.Monitor, e.Hold
	if p.PCRs, err = pcrRules(e.PCR); err != nil {
		return p, err
	}
	p.RevokeChanged = e.OnChange == config.ChangeRevoke
	p.EventLogs = len(e.EventLog) > 0
	p.References, err = references(e.EventLog)
	return p, err
}

// references reads the start events of reference devices.
func references(l config.EventLogs) (all []enroll.Reference, err error) {
	for _, name := range l.Files() {
		text, err := plainfile.Read(name)
		if err != nil {
			return nil, exit.Usagef("server.enrollment.event-log: %w", err)
		}
		list, err := enroll.ParseReferences(text)
		if err != nil {
			return nil, exit.Usagef("server.enrollment.event-log: %s: %w; msl-hsm enrollment learn --events writes such a file", name, err)
		}
		all = append(all, list...)
	}
	return all, nil
}

func pcrRules(values config.PCRValues) (enroll.PCRRules, error) {
	rules := enroll.PCRRules{}
	for index, list := range values {
		for _, text := range list {
			value, err := hex.DecodeString(text)
			if err != nil {
				return nil, exit.Usagef("server.enrollment.pcr: %d: %w", index, err)
			}
			rules[index] = append(rules[index], value)
		}
	}
	return rules, nil
}

const wantRoots = "name a file with the certificates of makers and their roots, in PEM or DER"

// makerRoots reads the certificates of trusted manufacturers, if any.
func makerRoots(setting string, names config.RootList) (b enroll.Bundle, err error) {
	var texts [][]byte
	for _, name := range names {
		if name == config.Makers {
			texts = append(texts, makers.PEM())
			continue
		}
		text, err := plainfile.Read(name)
		if err != nil {
			return b, exit.Usagef("server.enrollment.%s: %w", setting, err)
		}
		if texts = append(texts, text); len(text) == 0 {
			return b, exit.Usagef("server.enrollment.%s: %s is empty: %s", setting, name, wantRoots)
		}
		if b, err = enroll.ParseBundle(makers.PEM(), text); err != nil { // only for the name of the file
			return b, exit.Usagef("server.enrollment.%s: %s: %w: %s", setting, name, err, wantRoots)
		}
	}
	if len(texts) == 0 {
		return enroll.Bundle{}, nil
	}
	if b, err = enroll.ParseBundle(texts...); err != nil {
		return b, exit.Usagef("server.enrollment.%s: %s: %w: %s", setting, strings.Join(names, ", "), err, wantRoots)
	}
	return b, nil
}

// EKKind parses a setting that names a kind of endorsement key, one of all.
func EKKind(setting, name string, all []enroll.EKKind) (enroll.EKKind, error) {
	if k := enroll.EKKind(name); slices.Contains(all, k) {
		return k, nil
	}
	return "", exit.Usagef("%s: unknown EK %q: want one of %s", setting, name, exit.List(all))
}

// Records are the records of devices, in a file or in etcd.
type Records interface {
	enroll.Records
	// Check reads everything, and counts the records by state.
	Check() (map[enroll.State]int, error)
	// Renew makes the newest version of the key authenticate the records.
	Renew(context.Context) error
	io.Closer
}

// An Authority enrolls devices and holds their records.
type Authority struct {
	*fleet.Authority
	Records Records
	CA      *x509.Certificate // nil without a CA
}

// OpenAuthority makes the authority of records, which it closes on failure. With a key
// store it can issue certificates.
func OpenAuthority(c *config.Config, state *state.Server, records Records, store Store) (*Authority, error) {
	settings, err := authoritySettings(c, store)
	a := &Authority{Records: records, CA: settings.Certificate}
	if err == nil {
		settings.Records = records
		settings.Window, _ = records.(enroll.Window) // for records in etcd
		a.Authority, err = fleet.NewAuthority(state, settings)
	}
	if errors.Is(err, enroll.ErrCA) {
		err = exit.Usagef("server.enrollment.ca: %s: %w; name the certificate of the key %s, or make one with msl-hsm ca init --out FILE", c.Server.Enrollment.CA, err, exit.Quoted(CAKey(c)))
	}
	if err != nil {
		return nil, errors.Join(err, records.Close())
	}
	return a, nil
}

func authoritySettings(c *config.Config, store Store) (settings enroll.Config, err error) {
	e := &c.Server.Enrollment
	if err := e.CheckPath(); err != nil {
		return settings, err
	}
	settings.Validity, settings.MaxPending, settings.PerSecond = e.Validity, e.Waiting, 2*e.Rate
	if settings.Policy, err = EnrollmentPolicy(e); err != nil || store == nil {
		return settings, err
	}
	if _, err := challengeKeys(c, store); err == nil {
		settings.MAC = func() ([]keystore.MAC, error) { return challengeKeys(c, store) }
	} else if !errors.Is(err, keystore.ErrNotFound) {
		return settings, err
	}
	if e.CA == "" {
		return settings, nil
	}
	if settings.Certificate, err = ReadCertificate("server.enrollment.ca", e.CA); err != nil {
		return settings, err
	}
	settings.Key, err = SignerOf(store, CAKey(c), "make it with msl-hsm ca init")
	return settings, err
}

// challengeKeys returns the keys that make challenges, so that a challenge outlives a
// restart of the server and is valid at others with the same keys: those that
// authenticate tokens, newest first. The data authenticated here begins differently from
// any token. A store without such a key, which issues no tokens, makes no challenges
// either.
func challengeKeys(c *config.Config, store keystore.Store) (found []keystore.MAC, err error) {
	label := keystore.RoleIssuerMAC.Label(c.Keystore.Prefix)
	all, err := store.Lookup(label)
	if err != nil {
		return nil, err
	}
	for i, v := range all {
		switch mac, err := keystore.As[keystore.MAC](label, v); {
		case err == nil:
			found = append(found, mac)
		case i == 0: // an older one only recognizes what it made
			return nil, err
		}
	}
	return found, nil
}

// EndpointKey returns the key from which those of the device endpoint are derived, or nil
// if there is none: the newest one that makes challenges.
func EndpointKey(c *config.Config, store keystore.Store) (keystore.MAC, error) {
	all, err := challengeKeys(c, store)
	if errors.Is(err, keystore.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// CAKey returns the label of the CA's key.
func CAKey(c *config.Config) string {
	if c.Server.Enrollment.CAKey != "" {
		return c.Server.Enrollment.CAKey
	}
	return keystore.RoleCA.Label(c.Keystore.Prefix)
}

// ReadCertificate reads the first certificate of a PEM file.
func ReadCertificate(setting, path string) (*x509.Certificate, error) {
	all, err := ReadCertificates(setting, path)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// Close closes the records.
func (a *Authority) Close() error { return a.Records.Close() }
