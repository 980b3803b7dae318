package keys

import (
	"io"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

// A TwoSided key exchange uses the same implementation on both sides.
type TwoSided interface {
	msl.Responder
	msl.Offerer
}

// TwoSidedExchange makes the named key exchange, which is the same on both sides. A nil
// random means the operating system.
func TwoSidedExchange(name string, store keystore.Store, groups config.GroupList, random io.Reader) (TwoSided, error) {
	switch name {
	case "JWE_RSA", "JWEJS_RSA", "JWK_RSA", config.OnlyWhenNamed:
		return &keyx.AsymmetricJOSE{Mechanism: keyx.JOSEMechanism(name), Store: store, Rand: random}, nil
	case "DIFFIE_HELLMAN":
		found, err := groups.Find()
		return &keyx.DiffieHellman{Store: store, Groups: found, Rand: random}, err
	}
	return nil, exit.Usagef("unknown key exchange %q: want some of %s", name, strings.Join(config.ExchangeNames(), ", "))
}
