package config

import (
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

// Forbids returns why the custody mode forbids a key exchange, or "".
func Forbids(custody msl.Custody, e msl.Exposure) string {
	if custody == msl.CustodySealed && e.Bytes {
		return e.Why + "; custody must be imported or shared for it"
	}
	return ""
}

// forbidsName is Forbids for a key exchange by its name, with the keys of a server.
func forbidsName(custody msl.Custody, name string) string {
	for _, row := range keyx.CustodyTable(keystore.Provider{}) {
		if row.Side == msl.RespondingSide && (row.Mechanism == name || row.Scheme == name) {
			return Forbids(custody, msl.Exposure{Bytes: row.Custody != msl.CustodySealed, Why: row.Why})
		}
	}
	return ""
}

// IsLadder reports whether a key exchange derives keys from pre-shared keys.
func IsLadder(name string) bool { return strings.HasSuffix(name, "_LADDER") }

// CannotRespond returns why a server of this configuration cannot use a key exchange, or "".
func (s *Server) CannotRespond(name string, custody msl.Custody) string {
	if name == TPMImport && !s.Enrollment.On() {
		return "it needs the attestation keys of devices: set server.enrollment"
	}
	return forbidsName(custody, name)
}

// CheckPeer requires key exchanges that a server can offer its peers.
func (s *Server) CheckPeer(custody msl.Custody) error {
	return checkExchanges("server.peer.key-exchanges", s.Peer.KeyExchanges, func(name string) string {
		switch {
		case IsLadder(name) || name == TPMImport:
			return "peers do not use it: want some of " + strings.Join(peerExchanges(), ", ")
		case name == "SYMMETRIC_WRAPPED" && s.PSKKeys == "":
			return "it needs server.psk-keys"
		}
		return forbidsName(custody, name)
	})
}

func peerExchanges() []string {
	return slices.DeleteFunc(ExchangeNames(), func(name string) bool { return IsLadder(name) || name == TPMImport })
}

// checkExchanges refuses named key exchanges that the rest of the configuration forbids.
// Flags may still let peers connect, or change what a client may use.
func (c *Config) checkExchanges() error {
	custody, err := ParseCustody("server.custody", c.Server.Custody)
	if err == nil {
		err = checkExchanges("server.key-exchanges", c.Server.KeyExchanges, func(name string) string { return c.Server.CannotRespond(name, custody) })
	}
	if err == nil && (c.Server.Peer.Path != "" || c.Server.Peer.Listen != "") {
		err = c.Server.CheckPeer(custody)
	}
	if err == nil && c.Client.Custody == msl.CustodySealed.String() {
		err = checkExchanges("client.key-exchanges", c.Client.KeyExchanges, func(name string) string {
			if name == TPMImport { // in a TPM that has AES, its keys stay sealed
				return ""
			}
			return forbidsName(msl.CustodySealed, name)
		})
	}
	return err
}

func checkExchanges(setting string, names []string, cannot func(name string) string) error {
	for _, name := range names {
		if why := cannot(name); why != "" {
			return exit.Usagef("%s: %s: %s", setting, name, why)
		}
	}
	return nil
}
