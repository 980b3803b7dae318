package main

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
)

type entityFlags struct {
	state, pskFile, generatePSK, rsaKey, keyID string
	x509, none                                 bool
	keyExchanges, userSchemes                  []string
}

func (p *program) entityAdd() *cobra.Command {
	var f entityFlags
	c := &cobra.Command{
		Use:   "add IDENTITY --psk-file FILE | --generate-psk FILE | --rsa-public-key FILE | --x509 | --none",
		Short: "Register an entity",
		Long: `Registers an entity, with the one way in which it proves who it is.

Pre-shared keys are sealed by the key store before they are kept. An entity with
a certificate (--x509) under the configured roots needs no registration; it may
have one to be restricted. Its identity is the subject in the form of RFC 2253.
--none believes everybody who claims the identity.`,
		Args: want("IDENTITY"),
		RunE: func(_ *cobra.Command, args []string) error { return p.addEntity(args[0], f) },
	}
	stateFlag(c, &f.state)
	c.Flags().StringVar(&f.pskFile, "psk-file", "", "pre-shared keys from this `FILE`")
	c.Flags().StringVar(&f.generatePSK, "generate-psk", "", "make pre-shared keys and write them to this new `FILE`, for the device")
	c.Flags().StringVar(&f.rsaKey, "rsa-public-key", "", "RSA public key from this PEM `FILE`")
	c.Flags().StringVar(&f.keyID, "key-id", "", "`ID` of the RSA key (default made of the key)")
	c.Flags().BoolVar(&f.x509, "x509", false, "by certificate")
	c.Flags().BoolVar(&f.none, "none", false, "without any proof")
	c.Flags().StringSliceVar(&f.keyExchanges, "key-exchanges", nil, "`SCHEMES` of key exchange that it may use (default all)")
	c.Flags().StringSliceVar(&f.userSchemes, "user-schemes", nil, "`SCHEMES` of user authentication that it may use (default all)")
	return c
}

// ways counts the ways of proving itself that an entity is given.
func (f entityFlags) ways() int {
	n := 0
	for _, given := range []bool{f.pskFile != "", f.generatePSK != "", f.rsaKey != "", f.x509, f.none} {
		if given {
			n++
		}
	}
	return n
}

func (p *program) addEntity(identity string, f entityFlags) (err error) {
	if f.ways() != 1 {
		return usagef("give one of --psk-file, --generate-psk, --rsa-public-key, --x509 and --none")
	}
	c, err := p.configure()
	if err != nil {
		return err
	}
	e := bolt.EntityRecord{Identity: identity, KeyExchanges: f.keyExchanges, UserSchemes: f.userSchemes}
	state, err := c.openRegistry(f.state)
	if err != nil {
		return err
	}
	defer closing(&err, state)
	switch {
	case f.rsaKey != "":
		err = rsaEntity(&e, f.rsaKey, f.keyID)
	case f.x509:
		e.Scheme = "X509"
	case f.none:
		e.Scheme = "NONE"
	default:
		err = c.pskEntity(&e, f)
	}
	if err != nil {
		return err
	}
	if err := state.AddEntity(e); err != nil {
		return undo(f.generatePSK, err)
	}
	p.registered(e, f.generatePSK)
	return nil
}

func (p *program) registered(e bolt.EntityRecord, psk string) {
	fmt.Fprintf(p.stdout, "registered %s with scheme %s", printable(e.Identity), e.Scheme)
	if e.KeyID != "" {
		fmt.Fprintf(p.stdout, ", key id %s", printable(e.KeyID))
	}
	if psk != "" {
		fmt.Fprintf(p.stdout, "; give %s to the device", psk)
	}
	fmt.Fprintln(p.stdout)
}

// undo removes a file of keys that belong to nobody.
func undo(path string, err error) error {
	if path == "" {
		return err
	}
	return errors.Join(err, os.Remove(path))
}

func rsaEntity(e *bolt.EntityRecord, path, keyID string) error {
	public, err := readPublicKey(path)
	if err != nil {
		return err
	}
	e.Scheme, e.KeyID = "RSA", keyID
	if e.KeyID == "" {
		if e.KeyID, err = keyIDOf(public); err != nil {
			return err
		}
	}
	e.PublicKey, err = x509.MarshalPKIXPublicKey(public)
	return err
}

// readPublicKey reads an RSA public key as key show --public prints it.
func readPublicKey(path string) (*rsa.PublicKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef("public key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, usagef("public key: %s has no PEM block PUBLIC KEY; make one with msl-hsm key show NAME --public", path)
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, usagef("public key: %s: %w", path, err)
	}
	key, ok := public.(*rsa.PublicKey)
	if !ok {
		return nil, usagef("public key: %s is not an RSA key", path)
	}
	return key, nil
}

// pskEntity gives an entity a key set, sealed by the key store.
func (c *config) pskEntity(e *bolt.EntityRecord, f entityFlags) (err error) {
	k := newPSK(e.Identity)
	if f.pskFile != "" {
		if k, err = readPSK(f.pskFile); err != nil {
			return err
		}
	}
	defer k.wipe()
	if k.Identity != "" && k.Identity != e.Identity {
		return usagef("the keys in %s are those of %q, not of %q", f.pskFile, k.Identity, e.Identity)
	}
	k.Identity = e.Identity
	store, err := c.openKeys()
	if err != nil {
		return err
	}
	defer closing(&err, store)
	e.Scheme = "PSK"
	if e.PSK, err = k.seal(store); err != nil {
		return err
	}
	if f.generatePSK != "" {
		return k.write(f.generatePSK)
	}
	return nil
}
