package entityauth

import (
	"context"
	"crypto"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// keyData is the authdata of an entity that names its key.
func keyData(identity, keyID string) []byte {
	return encodeStrings("identity", identity, "pubkeyid", keyID)
}

// registeredKey finds the public key that a peer names: it must be registered for that
// identity, under that id. missing is the code for an unknown key; the caller judges the
// kind of the key.
func registeredKey(ctx context.Context, d msl.Directory, authdata []byte, scheme string, missing msl.Code) (string, crypto.PublicKey, error) {
	f := wire.ParseFields(authdata)
	identity, keyID := f.String("identity"), f.String("pubkeyid")
	if err := malformed(f); err != nil {
		return "", nil, err
	}
	entity, err := lookUp(ctx, d, identity, scheme)
	if err != nil {
		return "", nil, err
	}
	if entity == nil || entity.KeyID != keyID {
		return "", nil, msl.Failure(missing, scheme, nil)
	}
	return identity, entity.PublicKey, nil
}
