package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
)

// A build says what this program was built from.
type build struct {
	Version   string   `json:"version"`
	Revision  string   `json:"revision,omitempty"`
	Modified  bool     `json:"modified"` // the source was not that of the revision
	Go        string   `json:"go"`
	Platform  string   `json:"platform"`
	KeyStores []string `json:"key_stores"`

	FIPS keys.FIPS `json:"fips140"` // of this process
}

func readBuild() build {
	b := build{Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, FIPS: keys.FIPSOf()}
	if info, ok := debug.ReadBuildInfo(); ok {
		b.Version = info.Main.Version
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Revision = s.Value
			case "vcs.modified":
				b.Modified = s.Value == "true"
			}
		}
	}
	for _, provider := range keys.Providers() {
		if !provider.SessionsInProcess { // a way to use another store
			b.KeyStores = append(b.KeyStores, provider.Name)
		}
	}
	return b
}

// String returns what version prints.
func (b build) String() string {
	revision := ""
	if b.Revision != "" {
		revision = " revision " + b.Revision
	}
	if b.Modified {
		revision += " (modified)"
	}
	return fmt.Sprintf("msl-hsm %s%s %s %s\nkey stores: %s\nFIPS 140-3 mode: %s\n",
		b.Version, revision, b.Go, b.Platform, strings.Join(b.KeyStores, ", "), b.FIPS)
}

func versionCommand(p *program) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version, how this program was built, and which key stores it has",
		Args:  want(),
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return printJSON(p.stdout, readBuild())
			}
			_, err := fmt.Fprint(p.stdout, readBuild())
			return err
		},
	}
	jsonFlag(c, &asJSON)
	return c
}
