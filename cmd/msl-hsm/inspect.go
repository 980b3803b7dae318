package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

func (p *program) inspect() *cobra.Command {
	var keys, secrets, asJSON bool
	c := &cobra.Command{
		Use:   "inspect FILE|-",
		Short: "Explain an MSL message or token",
		Long: "inspect shows any MSL message, token or ciphertext envelope in FILE, or in the\n" +
			"standard input. With --keys it opens the key store and the state of the server\n" +
			"and verifies and decrypts what is under their keys; the server must not run on\n" +
			"the same state at that time.",
		Args: want("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			if secrets {
				fmt.Fprintln(p.stderr, "msl-hsm: warning: the output shows passwords and keys that are found in the message")
			}
			in, err := p.open(args[0])
			if err != nil {
				return err
			}
			defer in.Close()
			return p.explain(c.Context(), in, keys, secrets, asJSON)
		},
	}
	c.Flags().BoolVar(&keys, "keys", false, "verify and decrypt with the server's keys")
	c.Flags().BoolVar(&secrets, "secrets", false, "show passwords and keys, too")
	jsonFlag(c, &asJSON)
	return c
}

// open returns a file, or the standard input.
func (p *program) open(name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(p.stdin), nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, usagef("%w; name a file with a message, or - for the standard input", err)
	}
	return f, nil
}

func (p *program) explain(ctx context.Context, in io.Reader, keys, secrets, asJSON bool) (err error) {
	inspector := &msl.Inspector{Secrets: secrets}
	if keys {
		s, err := p.inspectorKeys(inspector)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.close()) }()
	}
	parts, failed := inspector.Inspect(ctx, in)
	if asJSON {
		err = printJSON(p.stdout, parts)
	} else {
		err = msl.WriteText(p.stdout, parts)
	}
	return errors.Join(failed, err)
}

// inspectorKeys gives an inspector the keys of the server.
func (p *program) inspectorKeys(i *msl.Inspector) (*service, error) {
	c, err := p.configure()
	if err != nil {
		return nil, err
	}
	s, err := c.openService(nil)
	if err != nil {
		return nil, err
	}
	i.Issuer, i.ServiceTokens = s.msl.Issuer, s.msl.ServiceTokens
	i.Entities = append(s.msl.Entities, &entityauth.RSA{Directory: self{s.msl.Entity.(*entityauth.RSA)}})
	return s, nil
}

// self is a directory of the server alone, to verify its own answers.
type self struct{ own *entityauth.RSA }

func (s self) Entity(_ context.Context, identity string) (*msl.Entity, error) {
	if identity != s.own.Identity {
		return nil, keystore.ErrNotFound
	}
	return &msl.Entity{Identity: identity, Scheme: "RSA", KeyID: s.own.KeyID, PublicKey: s.own.Key.Public()}, nil
}
