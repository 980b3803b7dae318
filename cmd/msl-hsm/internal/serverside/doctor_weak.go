package serverside

import (
	"slices"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// Weaknesses are those of keys that the configuration accepts.
type weaknesses struct {
	names []string
	keys  int
}

// add returns the weaknesses of a key that are not accepted. It counts a key of this server all
// of whose weaknesses are.
func (w *weaknesses) add(c *config.Config, k keystore.Info) (refused []string) {
	if !keys.Uses(c, k.Label) {
		return k.Weaknesses
	}
	var names []string
	for _, weakness := range k.Weaknesses {
		name, _, _ := strings.Cut(weakness, ":")
		if !slices.Contains(c.Keystore.AllowWeak, name) {
			refused = append(refused, weakness)
		}
		names = append(names, name)
	}
	if len(refused) == 0 && len(names) > 0 {
		w.keys++
		w.names = slices.Compact(slices.Sorted(slices.Values(append(w.names, names...))))
	}
	return refused
}
