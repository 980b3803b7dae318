package serverside

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
)

// A tlsListener accepts TLS connections, and logs their alerts when it closes.
type tlsListener struct {
	net.Listener
	alerts *tlsalert.Counter
	log    *slog.Logger
}

// Close logs the counts.
func (l tlsListener) Close() error {
	if counts := l.alerts.Counts(); len(counts) > 0 {
		l.log.Info("TLS alerts", "counts", counts, "unreadable_warnings", l.alerts.Unreadable(), "truncated", l.alerts.Truncated())
	}
	return l.Listener.Close()
}

// SchemeOf returns the scheme of the URLs that l serves.
func SchemeOf(l net.Listener) string {
	if _, ok := l.(tlsListener); ok {
		return "https"
	}
	return "http"
}

// Secured adds TLS to a listener, if TLS is configured.
func (s *Service) Secured(l net.Listener, log *slog.Logger) (net.Listener, error) {
	if s.tls == nil {
		return l, nil
	}
	secured, err := s.tls.Listen(l)
	if err != nil {
		return nil, exit.Usagef("server.tls: %w", err)
	}
	s.secured = append(s.secured, secured)
	return tlsListener{secured, s.tls.Alerts, log}, nil
}

// renewTLS gives new connections the TLS settings of another service.
func (b *base) renewTLS(next *mslhttp.TLSServer) error {
	var errs []error
	for _, l := range b.secured {
		errs = append(errs, l.(interface {
			Renew(*mslhttp.TLSServer) error
		}).Renew(next))
	}
	if err := errors.Join(errs...); err != nil {
		return exit.Usagef("server.tls: %w", err)
	}
	return nil
}

// tlsServer returns the TLS server, or nil if TLS is not configured. With insist it must
// be.
func tlsServer(c *config.Config, service *Service, insist bool, log *slog.Logger) (*mslhttp.TLSServer, error) {
	own := c.Server.TLS
	if len(own.Certificates) == 0 {
		if insist {
			return nil, exit.Usagef("TLS without a certificate: name certificate and key in server.tls.certificates")
		}
		return nil, nil
	}
	s := &mslhttp.TLSServer{HTTP2: own.HTTP2, Alerts: &service.alerts, Report: func(e mslhttp.TLSEvent) { reportTLS(log, e) }}
	var err error
	if s.MinVersion, err = config.ParseVersion("server.tls.min-version", own.MinVersion); err != nil {
		return nil, err
	}
	if s.ClientCAs, err = keys.RootsIn("server.tls.client-ca", own.ClientCA); err != nil {
		return nil, err
	}
	if s.CheckClient, err = checkTLSClients(&own, service, log); err != nil {
		return nil, err
	}
	for _, entry := range own.Certificates {
		const setting = "server.tls.certificates"
		certificate, err := keys.LoadCertificate(entry, setting, service.Store)
		if err != nil {
			return nil, err
		}
		s.Certificates = append(s.Certificates, certificate)
		if leaf, err := x509.ParseCertificate(certificate.Chain[0]); err == nil {
			service.certificates = append(service.certificates, certificateFile{setting, entry.Certificate, leaf, Failure, reloadCertificate})
			service.stapled = append(service.stapled, stapledFile{entry, requiresStaple(leaf), certificate.CheckOCSP})
		}
	}
	if err := s.Check(); err != nil {
		return nil, exit.Usagef("server.tls: %w", err)
	}
	return s, nil
}

// noteStateCertificate notes the certificate for etcd. With an expired one the server
// continues, until a connection to etcd ends.
func noteStateCertificate(c *config.State, s *Service) error {
	const setting = "server.state.certificate"
	if c.Certificate == "" {
		return nil
	}
	chain, err := keys.ReadCertificates(setting, c.Certificate)
	if err == nil {
		s.certificates = append(s.certificates, certificateFile{setting, c.Certificate, chain[0], Warning, reloadCertificate})
	}
	return err
}

// checkTLSClients checks clients against the revocation lists, if there are any.
func checkTLSClients(s *config.ServerTLS, service *Service, log *slog.Logger) (func([]*x509.Certificate) error, error) {
	const setting = "server.tls.client-crl"
	if s.ClientCRL == "" {
		return nil, nil
	}
	issuers, err := keys.ReadCertificates("server.tls.client-ca", s.ClientCA)
	if err != nil {
		return nil, err
	}
	lists, err := service.openCRLs(setting, s.ClientCRL, issuers, log)
	if err != nil {
		return nil, err
	}
	if err := lists.OutOfDate(); err != nil {
		return nil, exit.Usagef("%s: %s: %w: get a new list of the authority", setting, s.ClientCRL, err)
	}
	for _, issuer := range issuers {
		if !slices.ContainsFunc(lists.Current(), func(list *entityauth.CRL) bool { return list.SpeaksFor(issuer) }) {
			log.Warn("certificates of a client authority are accepted without a revocation list", "authority", issuer.Subject.String(), "file", s.ClientCRL)
		}
	}
	return func(chain []*x509.Certificate) error {
		return entityauth.CheckChain(chain, lists.Current(), false, time.Now())
	}, nil
}

// reportTLS logs TLS events at the level of their class.
func reportTLS(log *slog.Logger, e mslhttp.TLSEvent) {
	attrs := []slog.Attr{slog.String("source", e.Remote.String())}
	if e.Origin != 0 {
		attrs = append(attrs, slog.String("alert", e.Alert.String()), slog.Int("number", int(e.Alert)), slog.String("origin", e.Origin.String()))
	}
	if e.Warning {
		log.LogAttrs(context.Background(), slog.LevelInfo, "TLS warning", attrs...)
		return
	}
	class := mslhttp.Classify(e.Err)
	log.LogAttrs(context.Background(), class.Level, "TLS connection failed", append(attrs, slog.String("class", class.Name), slog.Any("error", e.Err))...)
}
