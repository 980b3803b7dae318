package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/internal/plainfile"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
)

func tpmStorageCommand(p *program) *cobra.Command {
	var nonce string
	c := &cobra.Command{
		Use:   "storage --nonce HEX",
		Short: "Prove the storage key of this machine's TPM, as JSON",
		Long: `Prints the storage key of this machine's TPM, with a proof by its attestation key that
it is in this TPM. A server that enrolled this machine wraps pre-shared keys for it:
see msl-hsm entity add --help.`,
		Args: want(),
		RunE: func(*cobra.Command, []string) error {
			n, err := parseNonce(nonce)
			if err != nil {
				return err
			}
			return p.withDevice(func(_ *config.Config, m *keys.Device) error {
				proof, err := m.ForMSL().ProveStorageKey(n)
				if err != nil {
					return err
				}
				return printJSON(p.stdout, proof)
			})
		},
	}
	c.Flags().StringVar(&nonce, "nonce", "", "16 to 32 bytes from the server's operator, as hexadecimal `DIGITS`")
	return c
}

// provenStorage returns the storage key in the TPM of a device enrolled here, from the
// file with its proof for a nonce.
func provenStorage(c *config.Config, own *admin.Keys, device, file, nonceText string) (public []byte, err error) {
	nonce, err := parseNonce(nonceText)
	if err != nil {
		return nil, err
	}
	proof, err := readObject("storage key", file, fleet.ParseStorageProof)
	if err != nil {
		return nil, err
	}
	if !c.Server.Enrollment.On() {
		return nil, exit.Usagef("devices cannot enroll here: set server.enrollment.state in the configuration")
	}
	all, err := own.Enrollments(false)
	if err != nil {
		return nil, err
	}
	defer exit.Closing(&err, all)
	err = all.Certified(proof.Certified(device, nonce))
	if err != nil {
		return nil, fmt.Errorf("%s does not prove the storage key of device %q for this nonce: %w", file, exit.Printable(device), err)
	}
	return proof.Public, nil
}

func tpmImportPSKCommand(p *program) *cobra.Command {
	return &cobra.Command{
		Use:   "import-psk FILE",
		Short: "Import pre-shared keys into this machine's TPM",
		Long: `Imports pre-shared keys that msl-hsm entity add --tpm-psk wrapped for this machine's
TPM, as IDENTITY-encryption, IDENTITY-mac and IDENTITY-revealing. Be sure that FILE is
from the server: whoever made it has the keys. Then

  msl-hsm send --identity IDENTITY --psk-keys IDENTITY

uses them. A TPM cannot unwrap session keys as SYMMETRIC_WRAPPED requires. Use
TPM_IMPORT, or with --custody imported ASYMMETRIC_WRAPPED or, by IDENTITY-revealing,
--key-exchange JWE_LADDER or JWK_LADDER.`,
		Args: want("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			return p.withDevice(func(_ *config.Config, m *keys.Device) error { return importPSK(p, m, args[0]) })
		},
	}
}

func importPSK(p *program, m *keys.Device, path string) error {
	set, err := readObject("pre-shared keys", path, fleet.ParseWrappedPSK)
	if err != nil {
		return err
	}
	done, err := m.ForMSL().ImportPSK(set)
	var other *fleet.OtherDeviceError
	switch {
	case errors.As(err, &other):
		return exit.Usagef("the keys in %s are those of %q, and this machine is %q", path, exit.Printable(other.Identity), exit.Printable(other.Device))
	case errors.Is(err, keystore.ErrBadData):
		return fmt.Errorf("%s is damaged, or for another TPM: %w", path, err)
	case err != nil:
		return err
	}
	for _, k := range done {
		fmt.Fprintf(p.stdout, "imported %s version %d %v\n", k.Label, k.Version, k.Algorithm)
	}
	return nil
}

// readObject reads a file of one JSON object, which is not secret.
func readObject[T any](what, path string, parse func([]byte) (*T, error)) (*T, error) {
	text, err := plainfile.Read(path)
	if err != nil {
		return nil, exit.Usagef("%s: %w", what, err)
	}
	if len(text) > keys.MaxSecret {
		err = fmt.Errorf("it has more than %d bytes", keys.MaxSecret)
	}
	var v *T
	if err == nil {
		v, err = parse(text)
	}
	if err != nil {
		return nil, exit.Usagef("%s: %s: %w", what, path, err)
	}
	return v, nil
}
