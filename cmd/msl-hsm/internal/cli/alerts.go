package cli

import (
	"cmp"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
)

func alertsCommand(p *program) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "alerts [NAME|NUMBER]",
		Short: "Explain a TLS alert, or list them",
		Long: `Explains an alert of TLS, the layer below MSL: what it means, who may send it,
whether it ends the connection, and what you can do, depending on who sent it. Give
its name as in a log, such as bad_certificate, or its number, such as 42. Without one,
it lists all alerts.

A TLS alert is about the connection. It says nothing about the keys, tokens and
passwords of MSL: for those see msl-hsm errors.`,
		Args: atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			alerts := tlsalert.All()
			if len(args) == 1 {
				a, err := tlsalert.Parse(args[0])
				if err != nil {
					return exit.Usagef("%w; msl-hsm alerts lists them all", err)
				}
				alerts = []tlsalert.Alert{a}
			}
			rows := make([]tlsalert.Info, len(alerts))
			for i, a := range alerts {
				rows[i] = a.Info()
			}
			if len(args) == 1 && !asJSON {
				return explainAlert(p, alerts[0])
			}
			return list(p.stdout, asJSON, rows, "ALERT\tNAME\tLEVEL\tSENDER\tMEANING", func(r tlsalert.Info) []any {
				return []any{r.Number, r.Name, r.Level, r.Sender, r.Meaning}
			})
		},
	}
	for _, a := range tlsalert.All() {
		c.ValidArgs = append(c.ValidArgs, a.String())
	}
	jsonFlag(c, &asJSON)
	return c
}

func explainAlert(p *program, a tlsalert.Alert) error {
	info := a.Info()
	taken := "a warning that arrives is counted, and the connection continues"
	switch {
	case a == tlsalert.CloseNotify:
		taken = "the connection ends in good order"
	case a.Fatal(tlsalert.WarningByte, 0):
		taken = "it ends the connection, whatever its level"
	}
	if info.Extension {
		taken += "; an extension alert"
	}
	if info.Reserved {
		taken += "; must not be sent any more"
	}
	_, err := fmt.Fprintf(p.stdout, "%d %v\n  means        %s\n  level        %s; %s\n  sender       %v\n  defined in   %s\n  if sent      %s\n  if received  %s\n",
		info.Number, a, info.Meaning, info.Level, taken, info.Sender, cmp.Or(info.RFC, "no RFC"), info.IfSent, info.IfReceived)
	return err
}
