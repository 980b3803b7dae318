package serverside

import (
	"context"
	"log/slog"
	"strconv"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// RegisterAgain reports whether an entity's keys were sealed by an older version in a way
// that lets a PKCS #11 token compute a wrapping key derived from the others. Sealing them
// anew requires their bytes, which the server does not have. A revoked entity need not be
// registered again.
func RegisterAgain(e state.EntityRecord) bool {
	if e.PSK == nil || e.Revoked {
		return false
	}
	a, err := e.PSK.MACAlgorithm()
	return err == nil && a == keystore.HMACSHA256
}

// WarnEntities logs which entities must be registered again, and why.
func (s *Service) WarnEntities(c *config.Config, log *slog.Logger) error {
	all, err := s.State.Entities()
	if err != nil {
		return err
	}
	warnOldKeys(all, log)
	if warning := sealedApart(c, all); warning != "" {
		log.Warn(warning)
	}
	return nil
}

// warnOldKeys logs the first entities whose keys an older version sealed.
func warnOldKeys(all []state.EntityRecord, log *slog.Logger) {
	count, first := 0, []string{}
	for _, e := range all {
		if !RegisterAgain(e) {
			continue
		}
		if count++; count <= 3 {
			first = append(first, e.Identity)
		}
	}
	if count > 0 {
		log.Warn("an older version sealed the pre-shared keys of some entities: anyone who has the PIN of the key store and the state file may be able to compute their wrapping keys and decrypt recorded key exchanges; "+
			"give each entity new keys: msl-hsm entity remove IDENTITY, then msl-hsm entity add IDENTITY --generate-psk FILE, with --scheme PSK_PROFILE if it had that, or --tpm-psk if its keys are in a TPM; msl-hsm entity list marks them",
			"entities", count, "first", first)
	}
}

// WarnNames logs the names that are refused because another name is spelled like them.
func (s *Service) WarnNames(ctx context.Context, log *slog.Logger) error {
	apart, err := s.State.Apart(ctx)
	for _, a := range apart {
		log.Warn("two registered names differ only in their Unicode normalization: this spelling is refused, with its tokens, until one of the two is removed",
			"kind", a.Kind, "name", strconv.QuoteToASCII(a.Name))
	}
	return err
}
