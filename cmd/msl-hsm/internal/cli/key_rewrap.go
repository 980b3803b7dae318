package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// A rewrapping has the options of the verb.
type rewrapping struct {
	dryRun, asJSON bool
	limit          int
	after          string
}

func keyRewrapCommand(p *program) *cobra.Command {
	var x rewrapping
	c := &cobra.Command{
		Use:   "rewrap",
		Short: "Seal the pre-shared keys of entities with the newest keys",
		Long: `Seals the pre-shared keys of entities again, with the current versions, so that older
ones can be retired. Servers keep running; after an interruption, run it again.

A sealed key can leave a PKCS #11 token again only by trusted wrapping: if
keystore.trusted-wrapping was set when the version that sealed it was made, and the
current version is trusted (key rotate --so-pin, or key trust). Entities whose keys can
never leave the token are listed, and the exit code is 1: register them again with new
keys. With --limit, the last line says where the list continues, for --after.

--json lists all entities whose keys are still sealed by older versions: register_again is
false where only a trusted key is missing.`,
		Args: want(),
		RunE: func(c *cobra.Command, _ []string) error {
			if x.limit < 0 {
				return exit.Usagef("--limit %d: want a number of entities", x.limit)
			}
			return p.rotating(c.Context(), "key rewrap", "", func(ctx context.Context, r *admin.Rotator) error { return x.run(ctx, p, r) })
		},
	}
	c.Flags().BoolVar(&x.dryRun, "dry-run", false, "only list the entities whose keys cannot be sealed again")
	c.Flags().IntVar(&x.limit, "limit", 0, "list this `NUMBER` of entities at most (default all)")
	c.Flags().StringVar(&x.after, "after", "", "list only entities after this `NAME`")
	jsonFlag(c, &x.asJSON)
	return c
}

func (x rewrapping) run(ctx context.Context, p *program, r *admin.Rotator) error {
	line := newProgress(p.stderr)
	r.Sealed = func(done, of int) { line.tell("looked at %d of %d entities", done, of) }
	tell := r.Tell
	if x.asJSON {
		tell = func(format string, args ...any) { fmt.Fprintf(p.stderr, format+"\n", args...) }
	}
	r.Tell = func(format string, args ...any) { line.clear(); tell(format, args...) }
	rewrap := r.Rewrap
	if x.dryRun {
		rewrap = r.Unsealable
	}
	left, err := rewrap(ctx)
	line.clear()
	if err != nil {
		return err
	}
	if err := x.list(p, left); err != nil {
		return err
	}
	return leftError(left)
}

// list names the entities whose keys could not be sealed again.
func (x rewrapping) list(p *program, left []admin.Left) error {
	shown := slices.DeleteFunc(slices.Clone(left), func(l admin.Left) bool {
		return l.Identity <= x.after && x.after != "" || !l.Again && !x.asJSON
	})
	more := x.limit > 0 && len(shown) > x.limit
	if more {
		shown = shown[:x.limit]
	}
	if x.asJSON {
		if shown == nil {
			shown = []admin.Left{}
		}
		if err := printJSON(p.stdout, shown); err != nil {
			return err
		}
	} else {
		for _, l := range shown {
			fmt.Fprintln(p.stdout, exit.Printable(l.Identity))
		}
	}
	if more {
		fmt.Fprintf(p.stderr, "there are more: --after %s\n", exit.Quoted(shown[x.limit-1].Identity))
	}
	return nil
}

// leftError says what to do about entities whose keys could not be sealed again.
func leftError(left []admin.Left) error {
	again := 0
	for _, l := range left {
		if l.Again {
			again++
		}
	}
	var err error
	if again > 0 {
		err = fmt.Errorf("the keys of %s cannot leave the key store to be sealed again: give each new keys with msl-hsm entity remove and msl-hsm entity add", exit.Count(again, "entity", "entities"))
	}
	if waiting := len(left) - again; waiting > 0 {
		missing := fmt.Errorf("the keys of %s can be sealed again by trusted keys only, and the newest are not trusted: run msl-hsm key trust or msl-hsm key rotate --so-pin SOURCE, and then this again", exit.Count(waiting, "entity", "entities"))
		if err == nil {
			err = missing
		} else {
			err = errors.New(err.Error() + "; " + missing.Error())
		}
	}
	if err == nil {
		return nil
	}
	return exit.WithCode(err, exit.Failure)
}
