package keys

import (
	"crypto"
	"crypto/x509"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/plainfile"
	"github.com/msl-hsm/msl-hsm/internal/strictpem"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// MakeAuditKey is the next step if the key of the audit log is missing.
const MakeAuditKey = "run msl-hsm key create --set audit"

// AuditKey finds the key that signs the audit log.
func AuditKey(c *config.Config, store keystore.Store) (crypto.Signer, error) {
	return SignerOf(store, keystore.RoleAudit.Label(c.Keystore.Prefix), MakeAuditKey)
}

// AuditKeys returns the public keys of all versions of the key of the audit log, newest
// first.
func AuditKeys(c *config.Config, store keystore.Store) (all []crypto.PublicKey, err error) {
	label := keystore.RoleAudit.Label(c.Keystore.Prefix)
	if _, err := AuditKey(c, store); err != nil {
		return nil, err
	}
	ring, err := store.Lookup(label)
	if err != nil {
		return nil, err
	}
	for _, v := range ring {
		k, err := keystore.As[Signer](label, v)
		if err != nil {
			return nil, err
		}
		all = append(all, k.Public())
	}
	return all, nil
}

// ReadPublicKeys reads the public keys in a PEM file, as printed by msl-hsm audit key.
func ReadPublicKeys(path string) (all []crypto.PublicKey, err error) {
	text, err := plainfile.Read(path)
	if err != nil {
		return nil, exit.Usagef("public key: %w; name the file that msl-hsm audit key printed", err)
	}
	blocks, err := strictpem.Decode(text)
	if err != nil {
		return nil, exit.Usagef("public key: %s: %w; make it again with msl-hsm audit key", path, err)
	}
	for _, block := range blocks {
		public, err := x509.ParsePKIXPublicKey(block.Bytes)
		if block.Type != "PUBLIC KEY" || err != nil {
			return nil, exit.Usagef("public key: %s contains something other than public keys; make it again with msl-hsm audit key", path)
		}
		all = append(all, public)
	}
	if all == nil {
		return nil, exit.Usagef("public key: %s has no PEM block PUBLIC KEY; make one with msl-hsm audit key", path)
	}
	return all, nil
}
