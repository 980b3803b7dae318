package serverside

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/metrics"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/statuspage"
	"github.com/msl-hsm/msl-hsm/internal/outage"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/usermsg"
)

// Open builds a server: its state, its keys, and what it trusts. begin is called first,
// with its keys.
func Open(c *config.Config, begin func(*admin.Keys) error, log *slog.Logger) (*Service, error) {
	messages, err := c.Server.ReadMessages()
	if err != nil {
		return nil, err
	}
	s := &Service{crls: map[string]*keys.CRLFile{}, base: &base{asRead: c.Server.Identity, Connections: connections(&c.Server, log), Metrics: metrics.New(buildVersion()), started: time.Now()}}
	if c.Server.Admin.Listen != "" {
		s.past = &statuspage.History{}
	}
	c.Keystore.Calls = s.called
	own := admin.KeysOf(c)
	err = begin(own)
	if err == nil {
		err = s.openState(c, own, log)
	}
	if err != nil {
		return nil, errors.Join(err, own.Close())
	}
	if s.access, err = openAccessLog(c); err == nil {
		s.audit, err = openAudit(c, s.Store)
	}
	if err == nil {
		err = assemble(c, s, log)
	}
	if err == nil {
		say(c, s.MSL, messages)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.State.PasswordsAtATime(c.Server.Limits.Passwords)
	s.State.StartPruning(pruning(c, log))
	return s, nil
}

// openState opens the state, and the key store that authenticates it and belongs to it.
func (s *base) openState(c *config.Config, own *admin.Keys, log *slog.Logger) (err error) {
	s.State, s.Store, err = own.Serve(log, s.stateBack)
	if c.Server.State.Shared() {
		s.stateFailed.Trust = outage.Device
	}
	if !c.Server.State.Shared() && errors.Is(err, fs.ErrNotExist) {
		return firstStep(c, own, err)
	}
	if err != nil {
		return err
	}
	if s.paired, s.pairing, err = s.State.Pair(c, s.Store); err != nil {
		return errors.Join(err, s.State.Close(), s.Store.Close())
	}
	if s.pairing != "" {
		log.Warn("state and keys", "problem", s.pairing)
	}
	s.State.WhenBehind(func(identity string) {
		s.stateBehind.Store(&identity)
		log.Warn("state is behind", "entity", identity, "problem", behindText)
	})
	return nil
}

// stateBack notes that etcd is back: failures of steps that are still under way do not count.
func (s *base) stateBack() {
	now := time.Now()
	s.stateSince.Store(&now)
	s.stateFailed.Worked(now, untold)
}

// firstStep returns what a server without a state file lacks first: the keys, since
// making them also makes the file.
func firstStep(c *config.Config, own *admin.Keys, noState error) error {
	store, err := own.Store()
	if err != nil {
		return err
	}
	if _, err := ownEntity(c, store); err != nil {
		return err
	}
	if _, err := issuer(c, store); err != nil {
		return err
	}
	return noState
}

// pruning makes the state forget a token once it can no longer be renewed. It runs 24
// times in the lifetime of a token.
func pruning(c *config.Config, log *slog.Logger) state.Pruning {
	often := min(time.Hour, cmp.Or(c.Server.Lifetime, 24*time.Hour)/24)
	return state.Pruning{Keep: admin.AcceptedFor(c), Interval: often, Log: log}
}

// assemble looks up the keys and builds the server.
func assemble(c *config.Config, s *Service, log *slog.Logger) error {
	own, err := ownEntity(c, s.Store)
	if err != nil {
		return err
	}
	custody, err := c.ServerCustody()
	if err != nil {
		return err
	}
	if s.random == nil {
		if s.random, err = keys.Random(c, s.Store); err != nil {
			return err
		}
	}
	issuer, err := versions(c, s, log)
	if err != nil {
		return err
	}
	issuer.Rand, issuer.Used, issuer.Shared = s.random, s.issuerUse.note, custody == msl.CustodyShared
	s.heartbeat.sum, s.heartbeat.outage.Trust = issuer.Versions.Sum, outage.Device
	s.prefix = c.Keystore.Prefix
	s.psk = &entityauth.PSK{Directory: s.State, Store: s.Store}
	if c.Server.Enrollment.On() && s.Devices == nil {
		if s.Devices, err = admin.ServeDevices(c, s.State, s.Store, log); err != nil {
			return err
		}
		s.Devices.Written = s.audit.device
	}
	exchanges, err := keyExchanges(c, s, custody)
	if err != nil {
		return err
	}
	s.MSL = &msl.Server{
		Name: c.Server.Identity, Local: own,
		KeyExchanges:  exchanges,
		Custody:       custody,
		Issuer:        issuer,
		State:         stateFor(s, log),
		PermitUser:    permitter(c.Server.UserRules),
		Directory:     s.State,
		ServiceTokens: s.services.ServiceTokenKeys(c.Server.Identity),
		Capabilities:  &msl.Capabilities{Compression: c.Server.Compression},
		Limits:        messageLimits(c.Server.Limits),
		Log:           log,
		Report:        s.report,
		Headers:       s.headers,
	}
	if s.Devices != nil {
		s.MSL.CountSince = s.Devices.CountSince
		noteCA(s, c.Server.Enrollment.CA)
	}
	s.MSL.Users = userSchemes(c, s)
	if s.MSL.Peers, err = entitySchemes(c, s, log); err == nil {
		err = chooseNow(s)
	}
	return err
}

// permitter judges users by the rules of the configuration.
func permitter(rules config.UserRules) func(ctx context.Context, identity, user, scheme string) (bool, error) {
	return func(_ context.Context, identity, user, scheme string) (bool, error) {
		return rules.Permit(identity, user, scheme), nil
	}
}

// say gives a server its texts for users. Its answers list the languages of those, unless
// the configuration says otherwise.
func say(c *config.Config, server *msl.Server, messages *usermsg.Catalog) {
	languages := []string{"en"}
	if messages != nil {
		server.Messages, languages = messages, messages.Languages()
	}
	if c.Server.Languages != nil {
		languages = c.Server.Languages
	}
	server.Capabilities.Languages = languages
}

func messageLimits(l config.Limits) msl.Limits {
	return msl.Limits{
		Header: l.Header, Chunk: l.Chunk, Held: l.Held, Inflate: l.Inflate, Sessions: l.Sessions, Tokens: l.Tokens, Depth: l.Depth,
		ErrorsPerSecond: l.ErrorsPerSecond, ErrorsPerSource: l.ErrorsPerSource, PasswordsAtATime: l.Passwords,
		Unproven: l.Unproven, Proven: l.Proven,
	}
}

func issuer(c *config.Config, store keystore.Store) (*msl.Issuer, error) {
	i, err := msl.FindIssuer(store, c.Server.Identity, c.Keystore.Prefix)
	if err != nil {
		return nil, afterMissing(err)
	}
	own := &c.Server
	i.RenewAfter, i.Lifetime, i.RenewExpired = own.RenewAfter, own.Lifetime, own.RenewExpired
	i.UserRenewAfter, i.UserLifetime, i.UserRenewExpired = own.UserRenewAfter, own.UserLifetime, own.UserRenewExpired
	return i, nil
}

// versions finds the keys of all tokens, and returns the issuer. After a reload they are those of
// the service before it, which are looked up again: connections that began earlier follow
// rotations with them.
func versions(c *config.Config, s *Service, log *slog.Logger) (*msl.Issuer, error) {
	i, err := issuer(c, s.Store)
	switch {
	case err != nil:
		return nil, err
	case s.services == nil:
		s.issuing = i.Versions
		if s.services, err = serviceTokenKeys(c, s.Store); err == nil {
			s.issuing.Lost = s.lost(s.issuing, "issuer", log)
			s.services.Lost = s.lost(s.services, "service token", log)
		}
		return i, err
	}
	i.Versions = s.issuing
	return i, afterMissing(cmp.Or(s.issuing.Refresh(), s.services.Refresh()))
}

func serviceTokenKeys(c *config.Config, store keystore.Store) (*msl.Versions, error) {
	labels := keys.Labels(c.Keystore.Prefix, keystore.RoleServiceEncryption, keystore.RoleServiceMAC)
	found, err := msl.FindVersions(store, labels[0], labels[1])
	return found, afterMissing(err)
}
