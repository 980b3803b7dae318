package main

import (
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
)

// forMSL is this machine as package fleet uses it.
func (m *machine) forMSL() *fleet.Device { return &fleet.Device{Store: m.store, Identity: m.identity} }

// sessions is where session keys go that this process has seen: into the TPM, if
// it has AES.
func (m *machine) sessions() importing {
	if m.device.Capabilities().EncryptDecrypt {
		return m.store
	}
	return soft.New()
}

// tpmImport is the key exchange TPM_IMPORT of either side.
func (k exchangeKeys) tpmImport() *keyx.TPMImport {
	x := &keyx.TPMImport{Store: k.store}
	if k.devices != nil {
		x.Verifier = fleet.Verifier{Authority: k.devices.Authority}
	}
	if k.machine != nil {
		x.Device = k.machine.forMSL()
		if !k.machine.device.Capabilities().EncryptDecrypt {
			x.Outside = soft.New()
		}
	}
	return x
}

// machineEntity is this machine as a server enrolled it: by its first key, or by
// the certificate of that key.
func machineEntity(c *config, m *machine) (msl.EntityScheme, error) {
	name, credentials, err := m.identity.Credentials()
	if err != nil {
		return nil, err
	}
	own := credentials[0]
	if c.Client.EntityScheme != "X509" {
		c.Client.Identity = name
		return keyEntity(name, "", own.Signer)
	}
	if own.Certificate == nil {
		return nil, usagef("the server that enrolled this machine issues no certificates: omit --entity-scheme")
	}
	c.Client.Identity = fleet.CertificateIdentity(name)
	return &entityauth.X509{Certificate: own.Certificate, Key: own.Signer}, nil
}

// newcomerClient talks to the server's enrollment as one without an identity, with
// session keys that end with the process: what has to be secret is for the TPM.
func newcomerClient(c *config) (*msl.Client, error) {
	if err := c.Client.checkURL(); err != nil {
		return nil, err
	}
	if err := c.Client.checkPeers(); err != nil {
		return nil, err
	}
	peers, err := peerSchemes(&c.Client, &client{})
	if err != nil {
		return nil, err
	}
	web, err := webClient(c, nil)
	if err != nil {
		return nil, err
	}
	return fleet.NewClient(peers, &mslhttp.Transport{URL: c.Client.URL, Client: web}), nil
}
