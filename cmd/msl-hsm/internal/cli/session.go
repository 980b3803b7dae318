package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/clientside"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// A sessionFlags says whose sessions a verb concerns.
type sessionFlags struct{ state, client, agent string }

func (f *sessionFlags) define(c *cobra.Command) {
	c.Flags().StringVar(&f.state, "state", "", "`FILE` that keeps the tokens (default client.state)")
	c.Flags().StringVar(&f.client, "client", "", "only the session of this client, a `NAME` of session list")
}

func (f *sessionFlags) defineAgent(c *cobra.Command) {
	c.Flags().StringVar(&f.agent, "agent", "", "ask the agent that listens at this `ADDRESS` and has the state file open")
}

// withSessions runs a verb on the sessions of a state file.
func (p *program) withSessions(f sessionFlags, do func(*clientside.Sessions) error) (err error) {
	c, err := p.configure()
	if err != nil {
		return err
	}
	config.Override(&c.Client.State, f.state)
	s, err := clientside.OpenSessions(c)
	if err != nil {
		return err
	}
	defer exit.Closing(&err, s)
	s.Only = f.client
	return do(s)
}

func sessionListCommand(p *program) *cobra.Command {
	var f sessionFlags
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the sessions in a state file, and the users who are logged in",
		Args:  want(),
		RunE: func(*cobra.Command, []string) error {
			return p.withSessions(f, func(s *clientside.Sessions) error {
				all, err := s.List()
				if err != nil {
					return err
				}
				return list(p.stdout, asJSON, all, "CLIENT\tKEY EXCHANGE\tEXPIRES\tUSERS", func(s clientside.Session) []any {
					if s.Expires.IsZero() {
						return []any{s.Client, "-", "-", "-"}
					}
					return []any{s.Client, s.KeyExchange, day(s.Expires), strings.Join(s.Users, " ")}
				})
			})
		},
	}
	f.define(c)
	jsonFlag(c, &asJSON)
	return c
}

func sessionLogoutCommand(p *program) *cobra.Command {
	var f sessionFlags
	c := &cobra.Command{
		Use:   "logout EMAIL",
		Short: "Forget that a user is logged in on this device",
		Long: `Drops the user ID token of a user and the service tokens bound to it from the state
file. The next message for the user needs the password again. This needs neither the
device's keys nor the server, and does not inform the server: there, user revoke and user
password end the user's sessions on all devices.`,
		Args: want("EMAIL"),
		RunE: func(c *cobra.Command, args []string) error {
			if f.agent != "" {
				return p.askAgent(c, f, args[0])
			}
			return p.withSessions(f, func(s *clientside.Sessions) error {
				from, err := s.Logout(c.Context(), args[0])
				return p.ended(err, s, from, "logged "+exit.Printable(args[0])+" out from", exit.Printable(args[0])+" was not logged in")
			})
		},
	}
	f.define(c)
	f.defineAgent(c)
	return c
}

func sessionForgetCommand(p *program) *cobra.Command {
	var f sessionFlags
	c := &cobra.Command{
		Use:   "forget",
		Short: "Forget the session of this device, with all its tokens and users",
		Long: `Drops the master token with its session keys, the user ID tokens and the service
tokens from the state file. The next message begins a new session. This needs neither the
device's keys nor the server, and does not inform the server: there, entity revoke ends
the sessions of a device. The message counters stay in the file.`,
		Args: want(),
		RunE: func(c *cobra.Command, _ []string) error {
			if f.agent != "" {
				return p.askAgent(c, f, "")
			}
			return p.withSessions(f, func(s *clientside.Sessions) error {
				of, err := s.Forget(c.Context())
				return p.ended(err, s, of, "forgot the session of", "there was no session")
			})
		},
	}
	f.define(c)
	f.defineAgent(c)
	return c
}

// ended prints which sessions ended, and purges the file of them.
func (p *program) ended(err error, s *clientside.Sessions, names []string, what, nothing string) error {
	for _, name := range names {
		fmt.Fprintf(p.stdout, "%s %s\n", what, exit.Printable(name))
	}
	if err != nil {
		return err
	}
	if len(names) == 0 {
		fmt.Fprintln(p.stdout, nothing)
	}
	return s.Purge() // an agent leaves traces of what it dropped
}

// askAgent makes an agent end a session.
func (p *program) askAgent(c *cobra.Command, f sessionFlags, user string) error {
	if f.state != "" || f.client != "" {
		return exit.Usagef("--agent asks an agent, which has one session of its own: omit --state and --client")
	}
	if err := clientside.AskAgent(c.Context(), f.agent, user); err != nil {
		return err
	}
	what := "forgot its session"
	if user != "" {
		what = "logged " + exit.Printable(user) + " out"
	}
	fmt.Fprintf(p.stdout, "the agent %s\n", what)
	return nil
}
