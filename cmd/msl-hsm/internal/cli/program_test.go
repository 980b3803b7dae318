package cli

import (
	"testing"

	"github.com/spf13/cobra"
)

func TestNearest(t *testing.T) {
	root := rootCommand(&program{})
	var state *cobra.Command
	for _, c := range root.Commands() {
		if c.Name() == "state" {
			state = c
		}
	}
	for _, c := range []struct {
		group      *cobra.Command
		word, want string
	}{
		{root, "serv", "serve"}, {root, "srve", "serve"}, {root, "server", "serve"}, {root, "sevre", "serve"}, {root, "SERVE", "serve"},
		{root, "usr", "user"}, {root, "users", "user"}, {root, "keys", "key"}, {root, "entities", "entity"}, {root, "verison", "version"},
		{root, "man", ""}, {root, "x", ""}, {root, "", ""}, {root, "install", ""}, {root, "enrol", "enrollment"},
		{state, "bakup", "backup"}, {state, "restor", "restore"}, {state, "list", ""},
	} {
		if got := nearest(c.word, c.group.Commands()); got != c.want {
			t.Errorf("%q: %q, want %q", c.word, got, c.want)
		}
	}
}
