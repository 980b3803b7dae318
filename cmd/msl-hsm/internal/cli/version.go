package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
)

func versionCommand(p *program) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version, how this program was built, and which key stores it has",
		Args:  want(),
		RunE: func(*cobra.Command, []string) error {
			version, revision := "unknown", ""
			if info, ok := debug.ReadBuildInfo(); ok {
				version = info.Main.Version
				for _, s := range info.Settings {
					switch {
					case s.Key == "vcs.revision":
						revision = " revision " + s.Value
					case s.Key == "vcs.modified" && s.Value == "true":
						revision += " (modified)"
					}
				}
			}
			var names []string
			for _, provider := range keys.Providers() {
				names = append(names, provider.Name)
			}
			fmt.Fprintf(p.stdout, "msl-hsm %s%s %s %s/%s\nkey stores: %s\n", version, revision,
				runtime.Version(), runtime.GOOS, runtime.GOARCH, strings.Join(names, ", "))
			return nil
		},
	}
}
