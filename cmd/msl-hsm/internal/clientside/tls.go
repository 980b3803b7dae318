package clientside

import (
	"net/http"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// WebClient returns the HTTP client for the server's URL.
func WebClient(c *config.Config, store keystore.Store) (*http.Client, error) {
	if !strings.HasPrefix(c.Client.URL, "https:") {
		return http.DefaultClient, nil
	}
	t, err := tlsClient(c, store)
	if err != nil {
		return nil, err
	}
	transport, err := t.Transport()
	if err != nil {
		return nil, exit.Usagef("client.tls: %w", err)
	}
	return &http.Client{Transport: transport}, nil
}

// tlsClient returns what makes TLS connections to the server.
func tlsClient(c *config.Config, store keystore.Store) (*mslhttp.TLSClient, error) {
	own := c.Client.TLS
	t := &mslhttp.TLSClient{ServerName: own.ServerName}
	var err error
	if t.MinVersion, err = config.ParseVersion("client.tls.min-version", own.MinVersion); err != nil {
		return nil, err
	}
	if t.Roots, err = keys.RootsIn("client.tls.roots", own.Roots); err != nil {
		return nil, err
	}
	switch {
	case own.Certificate != "" && own.Key != "":
		certificate, err := keys.LoadCertificate(config.Certificate{Certificate: own.Certificate, Key: own.Key}, "client.tls.certificate", store)
		if err != nil {
			return nil, err
		}
		t.Certificate = &certificate
	case own.Certificate != "" || own.Key != "":
		return nil, exit.Usagef("client.tls has a certificate or a key: give both, or none")
	}
	return t, nil
}
