package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/serverside"
)

// A diagnosis is what the doctor found.
type diagnosis struct {
	Healthy bool               `json:"healthy"`
	Checks  []serverside.Check `json:"checks"`
}

func doctorCommand(p *program) *cobra.Command {
	var state string
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Find out what is wrong with a server by trying everything it needs",
		Long: `Checks everything that the configured server needs: the configuration, the
clock, files, ports, the state, the PKCS #11 module, the PIN, each key, certificates, and
the service behind the gateway. It does a handshake by every key exchange that the server
offers, with a device that exists only for this test, and comes back with the token. It
changes nothing, and may run beside the server.

Each line is ok, a warning or a failure, with the next step. If anything fails, the exit
code is 1.`,
		Args: want(),
		RunE: func(c *cobra.Command, _ []string) error { return p.diagnose(c, state, asJSON) },
	}
	stateFlag(c, &state)
	jsonFlag(c, &asJSON)
	return c
}

func (p *program) diagnose(c *cobra.Command, state string, asJSON bool) error {
	conf, err := serverConfig(p, serveFlags{state: state})
	d := diagnosis{Checks: []serverside.Check{{Name: "configuration", Verdict: serverside.OK, Detail: "no mistake"}}}
	if err != nil {
		d.Checks[0] = serverside.Check{Name: "configuration", Verdict: serverside.Failure, Detail: exit.OneLine(err)}
	} else {
		d.Checks = append(d.Checks, serverside.Examine(c.Context(), conf)...)
	}
	var failed []string
	for _, check := range d.Checks {
		if check.Verdict == serverside.Failure {
			failed = append(failed, check.Name)
		}
	}
	d.Healthy = len(failed) == 0
	if asJSON {
		err = printJSON(p.stdout, d)
	} else {
		err = list(p.stdout, false, d.Checks, "CHECK\tVERDICT\tDETAIL", func(c serverside.Check) []any { return []any{c.Name, c.Verdict, c.Detail} })
	}
	if err == nil && len(failed) > 0 {
		err = exit.WithCode(fmt.Errorf("%d of %d checks fail: %s; see above for what to do", len(failed), len(d.Checks), strings.Join(failed, ", ")), exit.Failure)
	}
	return err
}
