package keys

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"os"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/plainfile"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// LoadCertificate reads the certificate and finds its key.
func LoadCertificate(e config.Certificate, what string, store keystore.Store) (c mslhttp.TLSCertificate, err error) {
	chain, err := ReadCertificates(what, e.Certificate)
	if err != nil {
		return c, err
	}
	for _, certificate := range chain {
		c.Chain = append(c.Chain, certificate.Raw)
	}
	ring, err := store.Lookup(e.Key)
	if err != nil {
		return c, Missing(err, MakeKey(e.Key, "ecdsa-p256"))
	}
	for _, version := range ring { // the certificate may be for an older key
		signer, ok := version.Key.(crypto.Signer)
		if !ok {
			return c, exit.Usagef("%s: key %q is for %v, and does not sign", what, e.Key, version.Key.Algorithm())
		}
		if c.Key == nil || keystore.SamePublic(signer.Public(), chain[0].PublicKey) {
			c.Key = signer
		}
	}
	if e.OCSP != "" {
		if _, err := os.Stat(e.OCSP); err != nil {
			return c, exit.Usagef("%s: OCSP response: %w", what, err)
		}
		c.OCSP = (&ocspFile{path: e.OCSP}).response
	}
	return c, nil
}

// TLSClient returns the TLS client of a setting.
func TLSClient(setting string, own *config.ClientTLS, store keystore.Store) (t *mslhttp.TLSClient, err error) {
	t = &mslhttp.TLSClient{ServerName: own.ServerName, HTTP2: own.HTTP2}
	if t.MinVersion, err = config.ParseVersion(setting+".min-version", own.MinVersion); err != nil {
		return nil, err
	}
	if t.Roots, err = RootsIn(setting+".roots", own.Roots); err != nil {
		return nil, err
	}
	if own.Certificate == "" {
		return t, nil
	}
	certificate, err := LoadCertificate(config.Certificate{Certificate: own.Certificate, Key: own.Key}, setting+".certificate", store)
	if err != nil {
		return nil, err
	}
	t.Certificate = &certificate
	return t, nil
}

// ocspPeriod is how often the file of an OCSP response is checked.
const ocspPeriod = 30 * time.Second

// An ocspFile is an OCSP response in DER or PEM that something else renews.
type ocspFile struct {
	path string

	mu      sync.Mutex
	looked  time.Time
	content []byte
}

// response returns nil while the file cannot be read.
func (f *ocspFile) response() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.looked) < ocspPeriod {
		return f.content
	}
	f.looked = time.Now()
	content, err := plainfile.Read(f.path)
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

// RootsIn reads trusted certificates; without a file the result is nil.
func RootsIn(what, path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	certificates, err := ReadCertificates(what, path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, c := range certificates {
		pool.AddCert(c)
	}
	return pool, nil
}
