package serverside

import (
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// afterMissing adds the next step to the error of missing server keys.
func afterMissing(err error) error {
	if errors.Is(err, msl.ErrVersionsApart) {
		return fmt.Errorf("%w: %w; %s --rotate", err, keystore.ErrNotFound, keys.MakeServerKeys)
	}
	return keys.Missing(err, keys.MakeServerKeys)
}
