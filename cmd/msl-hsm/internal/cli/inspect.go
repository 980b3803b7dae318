package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/serverside"
	"github.com/msl-hsm/msl-hsm/internal/plainfile"
	"github.com/msl-hsm/msl-hsm/msl"
)

func inspectCommand(p *program) *cobra.Command {
	var keys, secrets, asJSON bool
	c := &cobra.Command{
		Use:   "inspect FILE|-",
		Short: "Explain an MSL message or token",
		Long: "Explains any MSL message, token or ciphertext envelope in FILE or standard input.\n" +
			"With --keys it opens the key store and the state of the server, and verifies and\n" +
			"decrypts what their keys protect; stop the server first, because it has the state open.",
		Args: want("FILE or -"),
		RunE: func(c *cobra.Command, args []string) error {
			if secrets {
				fmt.Fprintln(p.stderr, "msl-hsm: warning: the output shows passwords and keys found in the message")
			}
			in, err := openInput(p, args[0])
			if err != nil {
				return err
			}
			defer in.Close()
			return explainMessage(p, c.Context(), in, keys, secrets, asJSON)
		},
	}
	c.Flags().BoolVar(&keys, "keys", false, "verify and decrypt with the server's keys")
	c.Flags().BoolVar(&secrets, "secrets", false, "show passwords and keys, too")
	jsonFlag(c, &asJSON)
	return c
}

// openInput opens a file or the standard input.
func openInput(p *program, name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(p.stdin), nil
	}
	f, err := plainfile.Stream(name)
	if err != nil {
		return nil, exit.Usagef("%w; name a file with a message, or - for standard input", err)
	}
	return f, nil
}

func explainMessage(p *program, ctx context.Context, in io.Reader, keys, secrets, asJSON bool) (err error) {
	inspector := &msl.Inspector{Secrets: secrets}
	if keys {
		s, err := inspectorKeys(p, inspector)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Close()) }()
	}
	parts, failed := inspector.Inspect(ctx, in)
	if asJSON {
		err = printJSON(p.stdout, parts)
	} else {
		err = msl.WriteText(p.stdout, parts)
	}
	if errors.Is(failed, msl.ErrNothing) {
		failed = fmt.Errorf("%w; name a file with a message", failed)
	} else if unread := (*fs.PathError)(nil); failed != nil && len(parts) == 0 && !errors.As(failed, &unread) {
		failed = fmt.Errorf("this is not an MSL message or token, which is a JSON object: %w; a key or certificate in PEM is shown by openssl", failed)
	}
	return errors.Join(failed, err)
}

// inspectorKeys gives an inspector the keys of the server.
func inspectorKeys(p *program, i *msl.Inspector) (*serverside.Service, error) {
	c, err := p.configure()
	if err != nil {
		return nil, err
	}
	s, err := serverside.Open(c, func(*admin.Keys) error { return nil }, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	i.Issuer, i.ServiceTokens = s.MSL.Issuer, s.MSL.ServiceTokens
	i.Senders = append(s.MSL.Peers, self{s.MSL.Local})
	return s, nil
}

// self opens messages that the server itself sent.
type self struct{ msl.LocalEntity }

// Open accepts only the server's own authentication data.
func (s self) Open(ctx context.Context, authdata []byte) (msl.Sender, func(), error) {
	local, err := s.Credentials(ctx)
	if err != nil {
		return msl.Sender{}, nil, err
	}
	from := msl.Sender{Identity: local.Identity}
	switch own := local.Protector.(type) {
	case msl.SigningKey:
		from.Opener = msl.VerifyKey{Key: own.Key.Public()}
	case msl.SymmetricKey:
		from.Opener = own
	}
	if from.Opener == nil || !bytes.Equal(authdata, local.AuthData) {
		return msl.Sender{}, nil, msl.ErrEntityNotFound
	}
	return from, func() {}, nil
}
