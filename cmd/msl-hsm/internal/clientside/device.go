package clientside

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"sync"

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

	mu      sync.Mutex
	used    crypto.PublicKey
	refused []crypto.PublicKey // by the server, since it last refused them all
}

func machineEntity(c *config.Config, m *keys.Device) (*machine, error) {
	e := &machine{device: m.Identity, certified: c.Client.EntityScheme == "X509"}
	own, name, err := e.present()
	if err != nil {
		return nil, err
	}
	e.name = name
	e.LocalEntity, err = e.entity(own)
	c.Client.Identity = e.identity()
	return e, err
}

// Credentials returns those of the present keys, or of the next ones if the server refused
// those.
func (m *machine) Credentials(ctx context.Context) (msl.Credentials, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	own, name, err := m.present()
	if err != nil {
		return msl.Credentials{}, err
	}
	now, err := m.entity(own)
	if err != nil {
		return msl.Credentials{}, err
	}
	if name != m.name || now.Scheme() != m.Scheme() {
		return msl.Credentials{}, fmt.Errorf("this machine is now enrolled as %s, with entity scheme %s: restart this program", exit.Printable(name), now.Scheme())
	}
	m.used = own.Signer.Public()
	return now.Credentials(ctx)
}

// afterRefusal returns the EntityAuth of a client: nil, unless the entity is a machine.
func afterRefusal(e msl.LocalEntity) func(context.Context, msl.LocalEntity, msl.ResponseCode) (msl.LocalEntity, error) {
	if m, ok := e.(*machine); ok {
		return m.another
	}
	return nil
}

// another is the EntityAuth of the client of a machine: it lets the machine use its next keys
// after the server refused the present ones, which it has replaced if a renewal was cut off
// before its answer came.
func (m *machine) another(_ context.Context, refused msl.LocalEntity, reason msl.ResponseCode) (msl.LocalEntity, error) {
	if reason == msl.EntityReauth {
		return refused, nil // the token was refused, not the key
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refused = append(m.refused, m.used)
	own, _, err := m.present()
	if err == nil && !m.wasRefused(own) {
		return refused, nil
	}
	m.refused = nil
	return nil, err
}

// present returns the machine's key for its next message, and its name.
func (m *machine) present() (identity.Credential, string, error) {
	next, err := m.device.Next() // first, because it may become the present one at any time
	if err != nil {
		return identity.Credential{}, "", err
	}
	name, now, err := m.device.Credentials()
	if err != nil {
		return identity.Credential{}, "", err
	}
	if !m.certified && len(next) > 0 && m.wasRefused(now[0]) && !m.wasRefused(next[0]) {
		return next[0], name, nil
	}
	return now[0], name, nil
}

func (m *machine) wasRefused(k identity.Credential) bool {
	return slices.ContainsFunc(m.refused, k.Signer.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal)
}

// entity returns the entity with one of the machine's keys.
func (m *machine) entity(own identity.Credential) (msl.LocalEntity, error) {
	if !m.certified {
		return keys.KeyEntity(m.name, "", own.Signer)
	}
	if own.Certificate == nil {
		return nil, exit.Usagef("the server that enrolled this machine issues no certificates: omit --entity-scheme")
	}
	return &entityauth.X509Entity{Certificate: own.Certificate, Key: own.Signer}, nil
}

// identity returns the name by which the server knows the machine.
func (m *machine) identity() string {
	if m.certified {
		return fleet.CertificateIdentity(m.name)
	}
	return m.name
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
