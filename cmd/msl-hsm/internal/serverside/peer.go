package serverside

import (
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

// peerOffers returns the key exchanges that this server offers its peers.
func peerOffers(c *config.Config, s *Service) (all []msl.Offerer, err error) {
	own, preShared := s.MSL.Local.(*entityauth.PSKEntity)
	names := []string(c.Server.Peer.KeyExchanges)
	if names == nil {
		names = []string{"ASYMMETRIC_WRAPPED"}
		if preShared {
			names = []string{"SYMMETRIC_WRAPPED"}
		}
	}
	for _, name := range names {
		var x msl.Offerer
		switch {
		case name == "SYMMETRIC_WRAPPED" && preShared:
			x = &keyx.SymmetricOfferer{Keys: own.Keys}
		case name == "SYMMETRIC_WRAPPED":
			return nil, exit.Usagef("server.peer.key-exchanges names SYMMETRIC_WRAPPED, which needs server.psk-keys")
		case name == "ASYMMETRIC_WRAPPED":
			x = &keyx.AsymmetricWrapped{Store: s.Store, Rand: s.random}
		default:
			if x, err = keys.TwoSidedExchange(name, s.Store, c.Server.DHGroups, s.random); err != nil {
				return nil, exit.Usagef("server.peer.key-exchanges: %w", err)
			}
		}
		if why := keys.Forbids(s.MSL.Custody, x.Exposes()); why != "" {
			return nil, exit.Usagef("server.peer.key-exchanges: %s: %s", name, why)
		}
		all = append(all, x)
	}
	return all, nil
}
