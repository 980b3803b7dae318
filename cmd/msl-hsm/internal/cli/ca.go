package cli

import (
	"cmp"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

type caFlags struct {
	name, key, out string
	validity       time.Duration
	rsa            bool
}

func caInitCommand(p *program) *cobra.Command {
	f := caFlags{}
	c := &cobra.Command{
		Use:   "init --out FILE",
		Short: "Make the key of the fleet's CA in the key store, and its certificate",
		Long: `Makes the key that signs the certificates of enrolled devices, in the key store, and
its self-signed certificate. A key that is there already is used, as for a certificate
that follows an expiring one; a certificate is never overwritten. Name the file as
server.enrollment.ca.`,
		Args: want(),
		RunE: func(*cobra.Command, []string) error { return makeCA(p, f) },
	}
	c.Flags().StringVar(&f.name, "name", "msl-hsm device CA", "common `NAME` of the CA")
	c.Flags().StringVar(&f.key, "key", "", "label `NAME` of its key (default PREFIX-ca)")
	c.Flags().StringVar(&f.out, "out", "", "write the certificate to this PEM `FILE` (default server.enrollment.ca)")
	c.Flags().DurationVar(&f.validity, "validity", 10*365*24*time.Hour, "`TIME` for which the certificate is valid")
	c.Flags().BoolVar(&f.rsa, "rsa", false, "make an RSA-2048 key instead of an ECDSA P-256 one")
	return c
}

func makeCA(p *program, f caFlags) (err error) {
	c, err := p.configure()
	if err != nil {
		return err
	}
	c.Server.Enrollment.CAKey = cmp.Or(f.key, c.Server.Enrollment.CAKey)
	if f.out = cmp.Or(f.out, c.Server.Enrollment.CA); f.out == "" {
		return exit.Usagef("no output file for the certificate: give --out FILE")
	}
	if f.validity <= 0 {
		return exit.Usagef("--validity %v: want a time such as 87600h", f.validity)
	}
	if err := vacant(f.out); err != nil { // before there is a key
		return err
	}
	store, err := keys.Make(c)
	if err != nil {
		return err
	}
	defer exit.Closing(&err, store)
	key, made, err := caSigner(store, keys.CAKey(c), f.rsa)
	if err := tellKeys(c, store, "ca init", keys.CAKey(c), err); err != nil {
		return err
	}
	certificate, err := enroll.NewCA(key, f.name, time.Now(), f.validity)
	if err != nil {
		return err
	}
	if err := atomicfile.Create(f.out, enroll.PEM("CERTIFICATE", certificate.Raw), 0o644); err != nil {
		return err
	}
	if made { // it has not certified anything yet, so no record can have been lost
		if _, err := admin.KeysBy(c, store).MakeEnrollments(); err != nil {
			return err
		}
	}
	fmt.Fprintf(p.stdout, "made the CA %q, key %s, certificate %s, valid until %s\n", f.name, keys.CAKey(c), f.out, day(certificate.NotAfter))
	return nil
}

// vacant checks that a certificate can have that name.
func vacant(out string) error {
	switch _, err := os.Lstat(out); {
	case err == nil:
		return exit.Usagef("%s already exists: a CA is made once; for another one, name another file with --out", out)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if _, err := os.Stat(filepath.Dir(out)); err != nil {
		return fmt.Errorf("%w; make the directory, or name another file with --out", err)
	}
	return nil
}

// caSigner finds or makes the key of the CA.
func caSigner(store keys.Store, label string, rsa bool) (signer crypto.Signer, made bool, err error) {
	signer, err = keys.SignerOf(store, label, "")
	if !errors.Is(err, keystore.ErrNotFound) {
		return signer, false, err
	}
	algorithm := keystore.RoleCA.Algorithm()
	if rsa {
		algorithm = keystore.RSASign2048
	}
	if _, err := store.Create(label, algorithm); err != nil {
		return nil, false, err
	}
	signer, err = keys.SignerOf(store, label, "")
	return signer, true, err
}
