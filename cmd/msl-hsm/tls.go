package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
)

// serverTLS is TLS below MSL, at the server: on if there is a certificate.
type serverTLS struct {
	Certificates certificateList `yaml:"certificates"`
	ClientCA     string          `yaml:"client-ca"`   // file of roots; clients need a certificate then
	ClientCRL    string          `yaml:"client-crl"`  // file of their revocation lists
	MinVersion   string          `yaml:"min-version"` // 1.2 or 1.3
}

// clientTLS is TLS below MSL, for a server whose URL begins with https.
type clientTLS struct {
	Roots       string `yaml:"roots"`       // file; default: those of the system
	Certificate string `yaml:"certificate"` // file
	Key         string `yaml:"key"`         // label of its key
	ServerName  string `yaml:"server-name"` // default: that of the URL
	MinVersion  string `yaml:"min-version"` // 1.2 or 1.3
}

// A certificateList is certificates with the labels of their keys.
type certificateList []tlsCertificate

type tlsCertificate struct {
	Certificate string `yaml:"certificate"` // file, the chain after the certificate
	Key         string `yaml:"key"`         // label
	OCSP        string `yaml:"ocsp"`        // file of the response to staple, read again when it changes
}

// UnmarshalYAML reads a list of {certificate, key, ocsp}.
func (l *certificateList) UnmarshalYAML(n *yaml.Node) error {
	for _, item := range n.Content {
		var c tlsCertificate
		if item.Kind != yaml.MappingNode || n.Kind != yaml.SequenceNode {
			return misplaced{item, fmt.Errorf("must be a list of certificates, as [{certificate: FILE, key: LABEL}]")}
		}
		fields := map[string]*string{"certificate": &c.Certificate, "key": &c.Key, "ocsp": &c.OCSP}
		for i := 0; i+1 < len(item.Content); i += 2 {
			field := fields[item.Content[i].Value]
			if field == nil {
				return misplaced{item.Content[i], fmt.Errorf("unknown field %q; a certificate has certificate, key, ocsp", item.Content[i].Value)}
			}
			*field = item.Content[i+1].Value
		}
		if c.Certificate == "" || c.Key == "" {
			return misplaced{item, fmt.Errorf("a certificate needs the fields certificate and key")}
		}
		*l = append(*l, c)
	}
	return nil
}

// settleTLS makes the paths absolute.
func (c *config) settleTLS(dir string) {
	paths := []*string{&c.Server.TLS.ClientCA, &c.Server.TLS.ClientCRL, &c.Client.TLS.Roots, &c.Client.TLS.Certificate}
	for i := range c.Server.TLS.Certificates {
		paths = append(paths, &c.Server.TLS.Certificates[i].Certificate, &c.Server.TLS.Certificates[i].OCSP)
	}
	for _, path := range paths {
		*path = within(dir, *path)
	}
}

// A securedListener gives TLS connections, and tells of their alerts at the end.
type securedListener struct {
	net.Listener
	alerts *tlsalert.Counter
	log    *slog.Logger
}

// Close logs what was counted.
func (l securedListener) Close() error {
	if counts := l.alerts.Counts(); len(counts) > 0 {
		l.log.Info("TLS alerts", "counts", counts, "unreadable_warnings", l.alerts.Unreadable(), "truncated", l.alerts.Truncated())
	}
	return l.Listener.Close()
}

// schemeOf is the scheme of the URLs that l serves.
func schemeOf(l net.Listener) string {
	if _, ok := l.(securedListener); ok {
		return "https"
	}
	return "http"
}

// secureListener puts TLS over a listener, if it is configured. With insist it must be.
func secureListener(c *config, store keystore.Store, l net.Listener, insist bool, log *slog.Logger) (net.Listener, error) {
	own := c.Server.TLS
	if len(own.Certificates) == 0 {
		if insist || own.ClientCA != "" || own.ClientCRL != "" || own.MinVersion != "" {
			return nil, usagef("TLS without a certificate: name certificate and key in server.tls.certificates")
		}
		return l, nil
	}
	s := &mslhttp.TLSServer{Alerts: &tlsalert.Counter{}, Report: func(e mslhttp.TLSEvent) { reportTLS(log, e) }}
	var err error
	if s.MinVersion, err = parseVersion("server.tls.min-version", own.MinVersion); err != nil {
		return nil, err
	}
	if s.ClientCAs, err = rootsIn("server.tls.client-ca", own.ClientCA); err != nil {
		return nil, err
	}
	if s.CheckClient, err = checkTLSClients(&own, log); err != nil {
		return nil, err
	}
	for _, entry := range own.Certificates {
		certificate, err := loadCertificate(entry, "server.tls.certificates", store)
		if err != nil {
			return nil, err
		}
		s.Certificates = append(s.Certificates, certificate)
	}
	secured, err := s.Listen(l)
	if err != nil {
		return nil, usagef("server.tls: %w", err)
	}
	return securedListener{secured, s.Alerts, log}, nil
}

// checkTLSClients asks the revocation lists about clients, if there are any lists.
func checkTLSClients(s *serverTLS, log *slog.Logger) (func([]*x509.Certificate) error, error) {
	const setting = "server.tls.client-crl"
	if s.ClientCRL == "" {
		return nil, nil
	}
	if s.ClientCA == "" {
		return nil, usagef("%s is set and server.tls.client-ca is not: no client is asked for a certificate", setting)
	}
	issuers, err := readCertificates("server.tls.client-ca", s.ClientCA)
	if err != nil {
		return nil, err
	}
	lists, err := openCRLs(setting, s.ClientCRL, issuers, log)
	if err != nil {
		return nil, err
	}
	for _, list := range lists.current() {
		if err := list.Current(time.Now()); err != nil {
			return nil, usagef("%s: %s: %w: get a new list of the authority", setting, s.ClientCRL, err)
		}
	}
	for _, issuer := range issuers {
		if !slices.ContainsFunc(lists.current(), func(list *entityauth.CRL) bool { return list.SpeaksFor(issuer) }) {
			log.Warn("certificates of a client authority are taken without a revocation list", "authority", issuer.Subject.String(), "file", s.ClientCRL)
		}
	}
	return func(chain []*x509.Certificate) error {
		return entityauth.CheckChain(chain, lists.current(), false, time.Now())
	}, nil
}

// loadCertificate reads the certificate and finds its key.
func loadCertificate(e tlsCertificate, what string, store keystore.Store) (c mslhttp.TLSCertificate, err error) {
	chain, err := readCertificates(what, e.Certificate)
	if err != nil {
		return c, err
	}
	for _, certificate := range chain {
		c.Chain = append(c.Chain, certificate.Raw)
	}
	ring, err := store.Lookup(e.Key)
	if err != nil {
		return c, missing(err, "make it with msl-hsm key create "+e.Key+" --algorithm ecdsa-p256")
	}
	for _, version := range ring { // a renewed key has an older certificate for a while
		signer, ok := version.Key.(crypto.Signer)
		if !ok {
			return c, usagef("%s: key %q is for %v, and does not sign", what, e.Key, version.Key.Algorithm())
		}
		public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
		if c.Key == nil || ok && public.Equal(chain[0].PublicKey) {
			c.Key = signer
		}
	}
	if e.OCSP != "" {
		if _, err := os.Stat(e.OCSP); err != nil {
			return c, usagef("%s: OCSP response: %w", what, err)
		}
		c.OCSP = (&ocspFile{path: e.OCSP}).response
	}
	return c, nil
}

// ocspPeriod is how often a file of an OCSP response is looked at.
const ocspPeriod = 30 * time.Second

// An ocspFile is an OCSP response in DER or PEM that somebody renews.
type ocspFile struct {
	path string

	mu      sync.Mutex
	looked  time.Time
	content []byte
}

// response is nil while the file cannot be read.
func (f *ocspFile) response() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.looked) < ocspPeriod {
		return f.content
	}
	f.looked = time.Now()
	content, err := os.ReadFile(f.path)
	if err != nil {
		content = nil
	}
	if block, _ := pem.Decode(content); block != nil {
		content = block.Bytes
	}
	if !bytes.Equal(content, f.content) {
		f.content = content
	}
	return f.content
}

// rootsIn reads certificates to trust; no file is nil.
func rootsIn(what, path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	certificates, err := readCertificates(what, path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, c := range certificates {
		pool.AddCert(c)
	}
	return pool, nil
}

func parseVersion(what, text string) (uint16, error) {
	switch text {
	case "1.2", "":
		return tls.VersionTLS12, nil
	case "1.3":
		return tls.VersionTLS13, nil
	}
	return 0, usagef("%s: %q is not a supported version of TLS: want 1.2 or 1.3", what, text)
}

// reportTLS logs what happened below MSL, at the level of its class.
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

// webClient is the HTTP client for the server's URL.
func webClient(c *config, store keystore.Store) (*http.Client, error) {
	own := c.Client.TLS
	if !strings.HasPrefix(c.Client.URL, "https:") {
		return http.DefaultClient, nil
	}
	t := &mslhttp.TLSClient{ServerName: own.ServerName}
	var err error
	if t.MinVersion, err = parseVersion("client.tls.min-version", own.MinVersion); err != nil {
		return nil, err
	}
	if t.Roots, err = rootsIn("client.tls.roots", own.Roots); err != nil {
		return nil, err
	}
	switch {
	case own.Certificate != "" && own.Key != "":
		certificate, err := loadCertificate(tlsCertificate{Certificate: own.Certificate, Key: own.Key}, "client.tls.certificate", store)
		if err != nil {
			return nil, err
		}
		t.Certificate = &certificate
	case own.Certificate != "" || own.Key != "":
		return nil, usagef("client.tls has a certificate or a key: give both, or none")
	}
	transport, err := t.Transport()
	if err != nil {
		return nil, usagef("client.tls: %w", err)
	}
	return &http.Client{Transport: transport}, nil
}
