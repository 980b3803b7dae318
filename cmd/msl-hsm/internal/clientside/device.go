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

// A machine is the entity of this machine as enrolled at a server: by its first key, or by
// the certificate of that key. Its keys are looked up again for each message, because
// another process may have renewed them.
type machine struct {
	msl.LocalEntity // as it was when this program started
	device          *identity.Device
	name            string
	certified       bool
}

func machineEntity(c *config.Config, m *keys.Device) (msl.LocalEntity, error) {
	e := &machine{device: m.Identity, certified: c.Client.EntityScheme == "X509"}
	var err error
	e.LocalEntity, e.name, err = e.enrolled()
	c.Client.Identity = e.name
	return e, err
}

// Credentials returns those of the present keys.
func (m *machine) Credentials(ctx context.Context) (msl.Credentials, error) {
	now, name, err := m.enrolled()
	if err != nil {
		return msl.Credentials{}, err
	}
	if name != m.name || now.Scheme() != m.Scheme() {
		return msl.Credentials{}, fmt.Errorf("this machine is now enrolled as %s, with entity scheme %s: restart this program", exit.Printable(name), now.Scheme())
	}
	return now.Credentials(ctx)
}

// enrolled returns the present entity and its name.
func (m *machine) enrolled() (msl.LocalEntity, string, error) {
	name, credentials, err := m.device.Credentials()
	if err != nil {
		return nil, "", err
	}
	own := credentials[0]
	if !m.certified {
		e, err := keys.KeyEntity(name, "", own.Signer)
		return e, name, err
	}
	if own.Certificate == nil {
		return nil, "", exit.Usagef("the server that enrolled this machine issues no certificates: omit --entity-scheme")
	}
	return &entityauth.X509Entity{Certificate: own.Certificate, Key: own.Signer}, fleet.CertificateIdentity(name), nil
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
