package clientside

import (
	"context"
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
	"github.com/msl-hsm/msl-hsm/tpm/identity"
)

// machineEntity returns this machine's entity as enrolled at a server: by its first key,
// or by the certificate of that key.
func machineEntity(c *config.Config, m *keys.Device) (msl.LocalEntity, error) {
	name, credentials, err := m.Identity.Credentials()
	if err != nil {
		return nil, err
	}
	own := credentials[0]
	if c.Client.EntityScheme != "X509" {
		c.Client.Identity = name
		return keys.KeyEntity(name, "", own.Signer)
	}
	if own.Certificate == nil {
		return nil, exit.Usagef("the server that enrolled this machine issues no certificates: omit --entity-scheme")
	}
	c.Client.Identity = fleet.CertificateIdentity(name)
	return &entityauth.X509Entity{Certificate: own.Certificate, Key: own.Signer}, nil
}

// NewcomerClient returns a client without an identity, for enrollment. Its session keys
// end with the process: anything secret is encrypted for the TPM.
func NewcomerClient(c *config.Config) (*msl.Client, error) {
	if err := c.Client.CheckURL(); err != nil {
		return nil, err
	}
	if err := c.Client.CheckPeers(); err != nil {
		return nil, err
	}
	peers, err := peerSchemes(&c.Client, &Client{})
	if err != nil {
		return nil, err
	}
	web, err := WebClient(c, nil)
	if err != nil {
		return nil, err
	}
	return fleet.NewClient(peers, &mslhttp.Transport{URL: c.Client.URL, Client: web}), nil
}

// EnrollmentExchange is [fleet.Exchange] for the server in the configuration. Its errors say
// what to do.
func EnrollmentExchange(client *msl.Client, c *config.Config) identity.Exchange {
	exchange := fleet.Exchange(client, c.Client.Recipient)
	return func(ctx context.Context, request []byte) ([]byte, error) {
		answer, err := exchange(ctx, request)
		var peer *msl.PeerError
		switch {
		case err == nil:
			return answer, nil
		case errors.As(err, &peer) && peer.Code == msl.ErrEntityAuthFactoryNotFound:
			return nil, fmt.Errorf("the server has no enrollment at this URL: add /enroll, or what server.enrollment.path names there: %w", err)
		}
		return nil, Explain(err, c)
	}
}
