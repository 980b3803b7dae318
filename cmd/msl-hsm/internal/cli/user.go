package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

func userAddCommand(p *program) *cobra.Command {
	var path, source string
	c := &cobra.Command{
		Use:   "add EMAIL",
		Short: "Register a user with a password",
		Args:  want("EMAIL"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := notFromEnvironment("--password-source", source); err != nil {
				return err
			}
			password, err := keys.NewSecret(source, "password of "+args[0])
			if err != nil {
				return err
			}
			defer password.Close()
			err = p.withNewState(path, func(s admin.Registry) error { return s.AddUser(args[0], password.Bytes()) })
			if err == nil {
				fmt.Fprintf(p.stdout, "registered %s\n", exit.Printable(args[0]))
			}
			return err
		},
	}
	stateFlag(c, &path)
	passwordFlag(c, &source)
	return c
}

func userPasswordCommand(p *program) *cobra.Command {
	var path, source string
	c := &cobra.Command{
		Use:   "password EMAIL",
		Short: "Change the password of a user, and end the user's sessions",
		Long: `Changes the password of a user. The user's tokens end, and every device asks for the
new password.`,
		Args: want("EMAIL"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := notFromEnvironment("--password-source", source); err != nil {
				return err
			}
			password, err := keys.NewSecret(source, "new password of "+args[0])
			if err != nil {
				return err
			}
			defer password.Close()
			err = p.withState(path, func(s admin.Registry) error { return s.SetPassword(args[0], password.Bytes()) })
			if err == nil {
				fmt.Fprintf(p.stdout, "changed the password of %s\n", exit.Printable(args[0]))
			}
			return known(err, "msl-hsm user list")
		},
	}
	stateFlag(c, &path)
	passwordFlag(c, &source)
	return c
}

func passwordFlag(c *cobra.Command, source *string) {
	c.Flags().StringVar(source, "password-source", "prompt", "`SOURCE` of the password: file:PATH, fd:N, credential:NAME or prompt")
}

func userRemoveCommand(p *program) *cobra.Command {
	return p.onName("EMAIL", "user", "remove", "Remove a user; the user's tokens are refused from then on", "removed", admin.Registry.RemoveUser)
}

func userRevokeCommand(p *program) *cobra.Command {
	return p.onName("EMAIL", "user", "revoke", "Refuse a user and the user's tokens, registered or not", "revoked", admin.Registry.RevokeUser)
}

func userUnrevokeCommand(p *program) *cobra.Command {
	return p.onName("EMAIL", "user", "unrevoke", "Undo a revocation", "unrevoked", admin.Registry.UnrevokeUser)
}

func userListCommand(p *program) *cobra.Command {
	var path string
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the registered users",
		Args:  want(),
		RunE: func(*cobra.Command, []string) error {
			return p.withState(path, func(s admin.Registry) error {
				all, err := s.Users()
				if err != nil {
					return err
				}
				return list(p.stdout, asJSON, all, "USER\tSTATUS\tREGISTERED", func(u state.UserRecord) []any {
					return []any{u.Name, status(u.Revoked, u.Removed), day(u.Created)}
				})
			})
		},
	}
	stateFlag(c, &path)
	jsonFlag(c, &asJSON)
	return c
}
