package cli

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/serverside"
)

// onServer makes a verb that asks a running server.
func onServer(p *program, c *cobra.Command, asJSON *bool, ask func(*admin.Running) error) *cobra.Command {
	var path string
	c.Args = want()
	c.RunE = func(*cobra.Command, []string) (err error) {
		c, err := p.configure()
		if err != nil {
			return err
		}
		r, err := admin.DialServer(c, path)
		if err != nil {
			return err
		}
		defer exit.Closing(&err, r)
		return ask(r)
	}
	stateFlag(c, &path)
	if asJSON != nil {
		jsonFlag(c, asJSON)
	}
	return c
}

func adminReloadCommand(p *program) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "reload",
		Short: "Make the running server read its configuration again",
		Long: `Makes the running server read its configuration again, and with it certificates, CAs,
revocation lists, the PIN, texts for users, and which versions of keys now exist.
If anything is wrong, this says so, and the server continues as before. It names settings
that need a restart. SIGHUP does the same, and logs it.`,
	}
	return onServer(p, c, &asJSON, func(r *admin.Running) error {
		var done serverside.Reloaded
		if err := r.Reload(&done); err != nil {
			return err
		}
		if asJSON {
			return printJSON(p.stdout, done)
		}
		return printReloaded(p.stdout, done)
	})
}

func printReloaded(w io.Writer, r serverside.Reloaded) error {
	fmt.Fprintf(w, "reloaded; settings that changed: %s\n", cmp.Or(strings.Join(r.Changed, ", "), "none"))
	if len(r.Restart) > 0 {
		fmt.Fprintf(w, "restart the server for: %s\n", strings.Join(r.Restart, ", "))
	}
	_, err := fmt.Fprintf(w, "versions of the issuer key, the newest issues: %s\n", strings.Trim(fmt.Sprint(r.Versions), "[]"))
	return err
}

func adminStatusCommand(p *program) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Show whether the running server can answer messages, and why not",
	}
	return onServer(p, c, &asJSON, func(r *admin.Running) error {
		var found serverside.Readiness
		if err := r.Status(&found); err != nil {
			return err
		}
		if asJSON {
			return notReady(found, printJSON(p.stdout, found))
		}
		err := list(p.stdout, false, found.Checks, "CHECK\tVERDICT\tDETAIL", func(c serverside.Check) []any {
			return []any{c.Name, c.Verdict, c.Detail}
		})
		return notReady(found, err)
	})
}

// notReady returns err, or an error with what keeps the server from being ready.
func notReady(r serverside.Readiness, err error) error {
	if err != nil || r.Ready {
		return err
	}
	var why []string
	for _, c := range r.Checks {
		if c.Verdict == serverside.Failure {
			why = append(why, c.Name+": "+c.Detail)
		}
	}
	return exit.WithCode(fmt.Errorf("the server is not ready: %s", strings.Join(why, "; ")), exit.Failure)
}

func adminMetricsCommand(p *program) *cobra.Command {
	c := &cobra.Command{
		Use:   "metrics",
		Short: "Print the metrics of the running server, in the format of Prometheus",
	}
	return onServer(p, c, nil, func(r *admin.Running) error { return r.Metrics(p.stdout) })
}
