package keys

import (
	"encoding/json"
	"fmt"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
)

// TellDerived warns that the wrapping key was derived without being asked for.
const TellDerived = "its wrapping key is derived from the other two; msl-hsm entity add --generate-psk draws one that is not"

// ReadPSK reads a key file, and derives the wrapping key if it is missing.
func ReadPSK(path string) (*entityauth.PSKFile, error) { return ReadKeySet(path, true) }

// ReadKeySet reads a key file. Without derive, the wrapping key may be missing.
func ReadKeySet(path string, derive bool) (*entityauth.PSKFile, error) {
	k, err := entityauth.ReadPSKFile(path, derive)
	if err != nil {
		return nil, exit.WithCode(err, exit.Secret)
	}
	return k, nil
}

// SealPSK seals keys for the state of a server.
func SealPSK(k *entityauth.PSKFile, store Importing) (*msl.SealedPSK, error) {
	sealed, err := k.Seal(store)
	return sealed, Missing(err, MakeServerKeys)
}

// WriteWrapped writes the keys wrapped for the TPM that has the given storage key.
func WriteWrapped(k *entityauth.PSKFile, path string, storage []byte) error {
	set, err := fleet.WrapPSK(k.Identity, storage, fleet.PSK{Encryption: k.Encryption, MAC: k.MAC, Wrapping: k.Wrapping})
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(set, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Create(path, append(text, '\n'), atomicfile.DefaultMode); err != nil {
		return fmt.Errorf("pre-shared keys: %w", err)
	}
	return nil
}
