package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
)

func configCheckCommand(p *program) *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "Look for mistakes in a configuration, without opening anything that it names",
		Long: `Reads the configuration, or FILE, and looks for unknown fields, values that do not
exist, and settings that contradict each other. A mistake is exit code 2. If the file has
client.url, it also says what send and agent need to be given by flags. msl-hsm doctor also
opens what the configuration names.`,
		Args: atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				p.flags.config = args[0]
			}
			path, err := p.configPath()
			if err != nil {
				return err
			}
			if path == "" {
				return exit.Usagef("there is no configuration to check: name a file")
			}
			c, err := p.configure()
			if err == nil {
				err = keys.Check(c)
			}
			if err == nil {
				err = c.CheckClient()
			}
			if err != nil {
				return err
			}
			if c.Blank {
				return exit.Usagef("%s has no setting: its lines are all comments, or it is empty; docs/configuration.md has every field", path)
			}
			told := fmt.Sprintf("no mistake in %s\n", exit.Printable(path))
			for _, needs := range c.ClientNeeds() {
				told += needs + "\n"
			}
			_, err = io.WriteString(p.stdout, told)
			return err
		},
	}
}
