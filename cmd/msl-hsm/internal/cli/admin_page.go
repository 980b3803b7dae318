package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
)

func adminPageCommand(p *program) *cobra.Command {
	c := &cobra.Command{
		Use:   "page",
		Short: "Print a URL of the running server's status page, with a token in it",
		Long: `Prints a URL of the status page of the running server, with a new token in it: open it in
a browser on this machine. It shows health, keys, what the server did in the last hour, and
devices that wait, and changes nothing.

Whoever has the URL can see the page until the server ends, or until 32 newer ones were
made. Browsers do not send the part after #, and the page takes it out of the address bar.`,
	}
	return onServer(p, c, nil, func(r *admin.Running) error {
		url, err := r.Page()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(p.stdout, url)
		return err
	})
}
