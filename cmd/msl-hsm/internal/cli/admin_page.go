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
		Long: `Prints a URL of the running server's status page, with a new token in it: open it in
a browser on this machine. The page shows health, keys, what the server did in the last
hour, and waiting devices, and changes nothing.

Anyone who has the URL can see the page until the server stops, or until 32 newer URLs
have been made. Browsers do not send the part after #, and the page removes it from the
address bar.`,
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
