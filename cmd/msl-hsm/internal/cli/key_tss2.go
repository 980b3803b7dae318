package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/spf13/cobra"
	"golang.org/x/crypto/cryptobyte"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
)

// readTSS2 reads a TPM key file, and chooses its algorithm.
func (k *incomingKey) readTSS2(path string, text []byte) error {
	f, err := tpm.ParseTSS2(text)
	if err == nil {
		err = f.Usable()
	}
	if err != nil {
		return exit.Usagef("key to import: %s: %w", path, err)
	}
	fits := f.Algorithms()
	if k.algorithm == 0 {
		k.algorithm = fits[0]
	}
	if !slices.Contains(fits, k.algorithm) {
		return exit.Usagef("the key in %s is not for %v: want one of %s", path, k.algorithm, exit.List(fits))
	}
	k.tss2 = bytes.Clone(text)
	return nil
}

// halfOfTPM is an error if a file is one of the two that other programs write for a key in a TPM: a
// TPM2B_PUBLIC, or a TPM2B_PRIVATE, which begins with a digest (TPM 2.0 Library, Part 2).
func halfOfTPM(text []byte) error {
	in := cryptobyte.String(text)
	var content, digest cryptobyte.String
	if !in.ReadUint16LengthPrefixed(&content) || !in.Empty() {
		return nil
	}
	half := "public"
	if _, err := tpm2.Unmarshal[tpm2.TPMTPublic](content); err != nil {
		half = "private"
		if !content.ReadUint16LengthPrefixed(&digest) || content.Empty() || !slices.Contains([]int{20, 32, 48, 64}, len(digest)) {
			return nil
		}
	}
	return exit.Usagef("only the %s half of a key in a TPM: make one file of both halves with tpm2_encodeobject -C PARENT -u PUBLIC -r PRIVATE -o FILE, and import that", half)
}

// takeTSS2 imports a TPM key file.
func (k *incomingKey) takeTSS2(store keys.Store) (v keystore.Version, err error) {
	chip, ok := store.(*tpm.Store)
	if !ok {
		return v, exit.Usagef("a TSS2 PRIVATE KEY belongs to a TPM: give --keystore tpm:?state=FILE")
	}
	v, err = chip.ImportTSS2(k.label, k.algorithm, k.tss2)
	switch {
	case errors.Is(err, keystore.ErrExists):
		return v, k.taken(err)
	case errors.Is(err, tpm2.TPMRCHandle):
		return v, fmt.Errorf("import key %q: %w; make its parent persistent there again, and import the file again", k.label, err)
	case errors.Is(err, keystore.ErrPIN) && !errors.Is(err, tpm2.TPMRCLockout) && !errors.As(err, new(*tpm.LastTryError)):
		return v, fmt.Errorf("import key %q: %w; name the source of its password with --pin", k.label, err)
	case err != nil:
		return v, fmt.Errorf("import key %q: %w", k.label, err)
	}
	return v, nil
}

func keyExportCommand(p *program) *cobra.Command {
	var version uint32
	var out string
	c := &cobra.Command{
		Use:   "export NAME",
		Short: "Write a key in a TPM as a file for other programs",
		Long: `Prints a key in this machine's TPM as a TSS2 PRIVATE KEY in PEM, for other programs
that use the same TPM, such as OpenSSL with tpm2-openssl. Only this TPM loads it, until
it is cleared. Anyone who has the file and access to the TPM can use the key, which has
a password if the key store has a PIN. Other key stores export no keys.`,
		Args: want("NAME"),
		RunE: func(_ *cobra.Command, args []string) (err error) {
			c, err := p.configure()
			if err != nil {
				return err
			}
			store, err := keys.Open(c)
			if err != nil {
				return err
			}
			defer exit.Closing(&err, store)
			chip, ok := store.(*tpm.Store)
			if !ok {
				return exit.Usagef("only keys in a TPM are exported, as other programs on the same TPM need it: give --keystore tpm:?state=FILE")
			}
			text, err := exported(chip, args[0], version)
			if err != nil {
				return err
			}
			if out == "" {
				_, err = p.stdout.Write(text)
				return err
			}
			const onlyOwner os.FileMode = 0o600
			err = atomicfile.Create(out, text, onlyOwner)
			if errors.Is(err, os.ErrExist) {
				return exit.Usagef("%s already exists: name another file, or remove it first", out)
			}
			return err
		},
	}
	versionFlag(c, &version, "`NUMBER` of the version (default the newest)")
	c.Flags().StringVar(&out, "out", "", "write it to a new `FILE` instead of printing it")
	return c
}

// exported returns one version of a key, or the newest for 0.
func exported(chip *tpm.Store, label string, version uint32) ([]byte, error) {
	if label == tpm.SealLabel {
		return nil, exit.Usagef("key %q seals what this key store keeps, and is of no use to other programs", label)
	}
	ring, err := chip.Lookup(label)
	if err != nil {
		return nil, keys.Missing(err, "msl-hsm key list shows what is there")
	}
	if version == 0 {
		version = ring[0].Number
	}
	text, err := chip.ExportTSS2(label, version)
	return text, keys.Missing(err, "msl-hsm key list shows what is there")
}
