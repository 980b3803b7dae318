package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/internal/outage"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/state/etcd"
)

// Serve opens the existing state of the server for serving, and the key store whose keys
// authenticate it, which the caller must close. Losing etcd and regaining it is logged,
// and back is called when etcd is back.
func (r *Keys) Serve(log *slog.Logger, back func()) (*State, keys.Store, error) {
	if err := FindState(r.c, ""); err != nil {
		return nil, nil, err
	}
	r.needs = true
	open := r.serveFile
	if r.c.Server.State.Shared() {
		open = func(log *slog.Logger) (*State, error) { return r.serveCluster(log, back) }
	}
	s, err := open(log)
	if err != nil {
		return nil, nil, err
	}
	s.store, r.own = r.store, false
	return s, r.store, nil
}

func (r *Keys) serveFile(log *slog.Logger) (*State, error) {
	s, err := r.openFile(authkv.Adopt)
	if err == nil {
		tellVerdict(log, r.c.Server.State.Path(), keystore.RoleStateMark, s.File.Verdict, r.c)
	}
	return s, err
}

func (r *Keys) serveCluster(log *slog.Logger, back func()) (*State, error) {
	store, err := r.open()
	if err != nil {
		return nil, err
	}
	at, err := clusterOf(r.c, store)
	if err != nil {
		return nil, err
	}
	lost := outage.Outage{Trust: outage.Device} // as logged
	at.Notice = func(err error) {
		if err != nil {
			news := beyondUse(err)
			lost.Failed(err, func() { news = true })
			if news {
				tellUnreached(log, err)
			}
			return
		}
		lost.Worked(time.Now(), func() { log.Info("etcd answers again: the state is up to date") })
		back()
	}
	s, err := opened(r.c, store, etcd.Open, at)
	if err == nil {
		s.Cluster = nil // its copy in memory is already authenticated
	}
	return s, err
}

// administer opens a state in etcd for a command.
func (r *Keys) administer() (*State, error) {
	r.needs = true
	store, err := r.open()
	if err != nil {
		return nil, err
	}
	at, err := clusterOf(r.c, store)
	if err != nil {
		return nil, err
	}
	s, err := opened(r.c, store, etcd.Administer, at)
	if err != nil {
		return nil, err
	}
	if err := s.belongs(r.c, store); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// both closes two things.
type both [2]io.Closer

func (b both) Close() error { return errors.Join(b[0].Close(), b[1].Close()) }

func opened(c *config.Config, store keys.Store, open func(context.Context, etcd.Config) (*etcd.Server, error), at etcd.Config) (*State, error) {
	server, err := open(context.Background(), at)
	switch {
	case errors.Is(err, etcd.ErrEmpty):
		return nil, exit.WithCode(exit.OfKind(fs.ErrNotExist, "no state %s: correct prefix and endpoints, or restore a backup; if the servers are new, run msl-hsm state init", &c.Server.State), exit.Usage)
	case errors.Is(err, kv.ErrUnfinished):
		return nil, exit.OfKind(kv.ErrUnfinished, "the state %s was not imported completely: run msl-hsm state import again, with the same file", &c.Server.State)
	case errors.Is(err, etcd.ErrForged):
		return nil, foreign(c, store, at, fmt.Errorf("the state %s cannot be used: restore a backup of etcd, and find out who else can write there: %w", &c.Server.State, err))
	case err != nil:
		return nil, err
	}
	server.PasswordCost(c.Server.Argon2.Cost())
	return &State{Server: server.Server, Cluster: server, Members: server.Members, renew: server.Reauthenticate, Closer: server}, nil
}

// beyondUse reports whether a state can no longer be used, although etcd answers.
func beyondUse(err error) bool { return errors.Is(err, kv.ErrDamaged) || errors.Is(err, kv.ErrEmpty) }

func tellUnreached(log *slog.Logger, err error) {
	if beyondUse(err) {
		log.Error("the state in etcd cannot be used: all messages fail", "error", err)
		return
	}
	log.Error("etcd does not answer: non-replayable messages and renewals fail, and soon all messages", "error", err)
}

// makeShared makes an empty state in etcd, and reports whether there was none before.
func makeShared(r *Keys) (made bool, err error) {
	return makeIn(r, func(at etcd.Config) error { return etcd.Create(context.Background(), at) })
}

func makeIn(r *Keys, create func(etcd.Config) error) (made bool, err error) {
	err = r.withCluster(func(_ keys.Store, at etcd.Config) error { return create(at) })
	if errors.Is(err, etcd.ErrExists) {
		return false, nil
	}
	return err == nil, err
}

// withCluster does something in the cluster of the state.
func (r *Keys) withCluster(do func(keys.Store, etcd.Config) error) error {
	store, err := r.Store()
	if err != nil {
		return err
	}
	at, err := clusterOf(r.c, store)
	if err != nil {
		return err
	}
	return do(store, at)
}

// clusterOf reads the cluster settings. The key that authenticates tokens also
// authenticates the state.
func clusterOf(c *config.Config, store keys.Store) (at etcd.Config, err error) {
	s := &c.Server.State
	at = etcd.Config{Endpoints: s.Etcd, Prefix: s.Prefix, User: s.User, Staleness: s.Staleness}
	if at.Key, err = etcd.KeyOf(store, keystore.RoleIssuerMAC.Label(c.Keystore.Prefix)); err != nil {
		return at, keys.Missing(err, keys.MakeServerKeys)
	}
	if s.Password != "" {
		at.Password = etcdPassword(s.Password)
	}
	at.TLS, at.Roots, err = etcdTLS(s)
	return at, err
}

// etcdPassword reads the password of the etcd user, which may be another one later. Nobody
// is prompted for it while the server runs.
func etcdPassword(source string) func(context.Context) ([]byte, error) {
	var asked atomic.Bool
	return func(context.Context) ([]byte, error) {
		if asked.Swap(true) && source == "prompt" {
			return nil, errors.New("it is prompted for once")
		}
		b, err := keys.Secret(source, "password of the etcd user")
		if err != nil {
			return nil, err
		}
		defer b.Close()
		return bytes.Clone(b.Bytes()), nil
	}
}

// etcdTLS reads the CA and the client certificate, and again for each connection: they may
// have been replaced.
func etcdTLS(s *config.State) (t *tls.Config, roots func() (*x509.CertPool, error), err error) {
	if s.CA+s.Certificate == "" {
		return nil, nil, nil
	}
	t = &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CA != "" {
		roots = func() (*x509.CertPool, error) { return etcdRoots(s.CA) }
		if _, err := roots(); err != nil {
			return nil, nil, err
		}
	}
	if s.Certificate != "" {
		certificate, key := s.Certificate, s.Key
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return etcdClient(certificate, key)
		}
		if _, err := t.GetClientCertificate(nil); err != nil {
			return nil, nil, err
		}
	}
	return t, roots, nil
}

// etcdClient reads the client certificate and its key.
func etcdClient(certificate, key string) (*tls.Certificate, error) {
	if _, err := keys.ReadCertificates("server.state.certificate", certificate); err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(certificate, key)
	var unread *fs.PathError
	switch {
	case errors.As(err, &unread):
		return nil, exit.Usagef("server.state.key: %w", err)
	case err != nil:
		return nil, exit.Usagef("server.state.key: %s does not contain the private key of %s in PEM: name the file that does", key, certificate)
	}
	return &pair, nil
}

func etcdRoots(path string) (*x509.CertPool, error) {
	all, err := keys.ReadCertificates("server.state.ca", path)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	for _, certificate := range all {
		roots.AddCert(certificate)
	}
	return roots, nil
}
