//go:build cgo && !nopkcs11

package cli

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

func tokenInitCommand(p *program) *cobra.Command {
	var label, soPIN string
	c := &cobra.Command{
		Use:   "init",
		Short: "Make a PKCS #11 token",
		Long: `Makes a PKCS #11 token.

With --softhsm DIR it is a SoftHSM token for development: DIR gets the token,
its PINs (files pin and so-pin, unless --pin and --so-pin name others) and a
configuration, msl-hsm.yaml, that is ready for "msl-hsm serve".

Without it, the token is made in a free slot of the module of --keystore; its label
is the token= of that URI, and its PINs come from --pin and --so-pin.`,
		Args: want(),
		RunE: func(*cobra.Command, []string) error {
			if p.flags.softhsm != "" {
				return initSoftHSM(p, p.flags.softhsm, label, soPIN)
			}
			return initToken(p, label, soPIN)
		},
	}
	c.Flags().StringVar(&label, "label", "", "`NAME` of the token (default token= of the URI, or dev)")
	c.Flags().StringVar(&soPIN, "so-pin", "", "`SOURCE` of the security officer's PIN")
	return c
}

// initSoftHSM makes a token for development, and the files that belong to it.
func initSoftHSM(p *program, dir, label, soSource string) error {
	if label == "" {
		label = "dev"
	}
	for flag, source := range map[string]string{"--pin": p.flags.pin, "--so-pin": soSource} {
		if err := notFromEnvironment(flag, source); err != nil {
			return err
		}
	}
	if err := config.CheckTokenLabel(label); err != nil {
		return err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	k := &config.Keystore{SoftHSM: dir, PIN: p.flags.pin}
	uri := &hsm.URI{Token: label}
	pin, so, err := newPINs(k, uri, soSource)
	if err != nil {
		return err
	}
	defer pin.Close()
	defer so.Close()
	err = existing(uri.Token, softhsm.Make(dir, uri.Token, pin.Bytes(), so.Bytes()))
	switch {
	case errors.Is(err, keystore.ErrExists) && admin.Absent(configIn(dir)): // it was interrupted
		fmt.Fprintf(p.stdout, "the SoftHSM token %q is in %s already\n", label, p.flags.softhsm)
	case err != nil:
		return err
	default:
		fmt.Fprintf(p.stdout, "made the SoftHSM token %q in %s\n", label, p.flags.softhsm)
	}
	return writeConfig(p, p.flags.softhsm, label, k.PIN)
}

const (
	theNewPIN   = "new PIN"
	theNewSOPIN = "new PIN of the security officer"
)

// newPINs reads the PINs that have a source, then makes the directory of the token, and generates
// the other PINs there: an error in what the user gave leaves nothing behind.
func newPINs(k *config.Keystore, uri *hsm.URI, soSource string) (pin, so *lockedmem.Buffer, err error) {
	if k.PIN != "" {
		pin, err = keys.NewSecret(k.PIN, theNewPIN)
	}
	if err == nil && soSource != "" {
		so, err = keys.NewSecret(soSource, theNewSOPIN)
	}
	if err == nil {
		err = errors.Join(softhsm.CheckPIN(pin.Bytes()), softhsm.CheckPIN(so.Bytes()))
	}
	if err == nil {
		err = keys.UseSoftHSM(k, uri)
	}
	if err == nil && pin == nil {
		pin, err = generatedPIN(filepath.Join(k.SoftHSM, "pin"), theNewPIN)
	}
	if err == nil && so == nil {
		so, err = generatedPIN(filepath.Join(k.SoftHSM, "so-pin"), theNewSOPIN)
	}
	if err != nil {
		pin.Close()
		so.Close()
	}
	return pin, so, err
}

// generatedPIN generates a PIN and keeps it in a file, or reads the one that is there: even if
// another process has just made it.
func generatedPIN(path, what string) (*lockedmem.Buffer, error) {
	line := []byte(rand.Text() + "\n")
	defer clear(line)
	err := atomicfile.Create(path, line, atomicfile.DefaultMode)
	switch {
	case errors.Is(err, fs.ErrExist):
		return keys.Secret("file:"+path, what)
	case err != nil:
		return nil, fmt.Errorf("keep the %s: %w", what, err)
	}
	return lockedmem.Copy(line[:len(line)-1]), nil
}

// existing adds the next step to the error for a token that exists.
func existing(label string, err error) error {
	if errors.Is(err, keystore.ErrExists) {
		return exit.OfKind(keystore.ErrExists, "token %q already exists; continue with msl-hsm key create --set server, or choose another --label", label)
	}
	return err
}

const configText = `# Configuration of msl-hsm; docs/configuration.md has every field.
keystore:
  softhsm: .            # SoftHSM keeps its tokens in this directory
  uri: pkcs11:token=%s
  pin: %s
server:
  listen: 127.0.0.1:8080
  identity: server
  state: server.db
`

func configIn(dir string) string { return filepath.Join(dir, "msl-hsm.yaml") }

// writeConfig writes a configuration beside the token, unless one exists.
func writeConfig(p *program, dir, label, pin string) error {
	if pin == "" {
		pin = "file:pin"
	}
	path := configIn(dir)
	uri := hsm.URI{Token: label}
	text := fmt.Sprintf(configText, uri.String()[len("pkcs11:token="):], pin)
	err := atomicfile.Create(path, []byte(text), atomicfile.DefaultMode)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		fmt.Fprintf(p.stdout, "wrote %s; next: msl-hsm --config %s key create --set server\n", path, exit.Quoted(path))
	}
	return err
}

// initToken initializes a token in a free slot of any module.
func initToken(p *program, label, soSource string) error {
	c, err := p.configure()
	if err != nil {
		return err
	}
	uri, err := keys.Resolve(&c.Keystore)
	if err != nil {
		return err
	}
	config.Override(&uri.Token, label)
	if uri.Token == "" {
		return exit.Usagef("no label for the token: give --label NAME")
	}
	if err := config.CheckTokenLabel(uri.Token); err != nil {
		return err
	}
	if uri.ModulePath == "" {
		return exit.Usagef("key store %s names no module-path: add ?module-path=/path/to/module.so", uri)
	}
	so, err := keys.NewSecret(keys.OrPrompt(soSource), theNewSOPIN)
	if err != nil {
		return err
	}
	defer so.Close()
	pin, err := keys.NewSecret(keys.OrPrompt(c.Keystore.PIN), theNewPIN)
	if err != nil {
		return err
	}
	defer pin.Close()
	if err := existing(uri.Token, hsm.InitToken(uri.ModulePath, uri.Token, so.Bytes(), pin.Bytes())); err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "made the token %q; its URI is %s\n", uri.Token, uri)
	return nil
}
