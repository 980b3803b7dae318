package clientside

import (
	"net/http"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// WebClient returns the HTTP client for the server's URL.
func WebClient(c *config.Config, store keystore.Store) (*http.Client, error) {
	if !strings.HasPrefix(c.Client.URL, "https:") {
		return http.DefaultClient, nil
	}
	t, err := keys.TLSClient("client.tls", &c.Client.TLS, store)
	if err != nil {
		return nil, err
	}
	transport, err := t.RoundTripper()
	if err != nil {
		return nil, exit.Usagef("client.tls: %w", err)
	}
	return &http.Client{Transport: transport}, nil
}
