package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"log/slog"
	"os"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/msl/state/etcd"
)

// openShared opens a state in etcd. With a log, it tells there when etcd is lost and back.
func openShared(s *config.State, log *slog.Logger, open func(context.Context, etcd.Config) (*etcd.Server, error)) (*State, error) {
	c, err := clusterOf(s)
	if err != nil {
		return nil, err
	}
	if log != nil {
		c.Notice = func(err error) { tellReach(log, err) }
	}
	server, err := open(context.Background(), c)
	if errors.Is(err, etcd.ErrEmpty) {
		return nil, exit.Usagef("no state %s: correct prefix and endpoints, or restore a backup; if the servers are new, run msl-hsm state init: %w", s, fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	return &State{Server: server.Server, Closer: server}, nil
}

func tellReach(log *slog.Logger, err error) {
	if err == nil {
		log.Info("etcd answers again: the state is up to date")
		return
	}
	log.Error("etcd does not answer: non-replayable messages and renewals fail, and soon all messages", "error", err)
}

// makeShared makes an empty state in etcd, and reports whether there was none.
func makeShared(s *config.State) (bool, error) {
	c, err := clusterOf(s)
	if err != nil {
		return false, err
	}
	err = etcd.Create(context.Background(), c)
	if errors.Is(err, etcd.ErrExists) {
		return false, nil
	}
	return err == nil, err
}

// clusterOf reads what the configuration names.
func clusterOf(s *config.State) (c etcd.Config, err error) {
	c = etcd.Config{Endpoints: s.Etcd, Prefix: s.Prefix, User: s.User, Staleness: s.Staleness}
	if s.Password != "" {
		c.Password = func(context.Context) ([]byte, error) {
			b, err := keys.Secret(s.Password, "password of the etcd user")
			if err != nil {
				return nil, err
			}
			defer b.Close()
			return bytes.Clone(b.Bytes()), nil
		}
	}
	if s.CA+s.Certificate == "" {
		return c, nil
	}
	c.TLS, err = etcdTLS(s)
	return c, err
}

func etcdTLS(s *config.State) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CA != "" {
		text, err := os.ReadFile(s.CA)
		if err != nil {
			return nil, exit.Usagef("server.state.ca: %w", err)
		}
		if t.RootCAs = x509.NewCertPool(); !t.RootCAs.AppendCertsFromPEM(text) {
			return nil, exit.Usagef("server.state.ca: %s has no certificate in PEM", s.CA)
		}
	}
	if s.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(s.Certificate, s.Key)
		if err != nil {
			return nil, exit.Usagef("server.state.certificate and key: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}
