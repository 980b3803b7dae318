//go:build cgo && !nopkcs11

package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// A pinChange is what a verb of token pin does, and where its PINs come from.
type pinChange struct {
	old, changed hsm.Role
	oldPIN       string // source
	newPIN       string // source
	done         string
}

func tokenPINSetCommand(p *program) *cobra.Command {
	x := pinChange{old: hsm.SecurityOfficer, changed: hsm.User, done: "set"}
	c := &cobra.Command{
		Use:   "set",
		Short: "Set the first user PIN of a token, as its security officer",
		Long: `Sets the first user PIN of a token that has none, as its security officer. token init does
that for the tokens it makes. The first PIN of the security officer is given when a token
is initialized.

A PIN without a flag is asked for at the terminal, or on the token's own keypad if it has
one.`,
		Args: want(),
		RunE: func(*cobra.Command, []string) error {
			return x.run(p, func(t hsm.PINs) error {
				if !t.Set() {
					return nil
				}
				return fmt.Errorf("the user of the token %q has a PIN: change it with msl-hsm token pin change, or, if nobody knows it, set another with msl-hsm token pin unblock", t.Label)
			})
		},
	}
	pinFlags(c, &x)
	return c
}

func tokenPINUnblockCommand(p *program) *cobra.Command {
	x := pinChange{old: hsm.SecurityOfficer, changed: hsm.User, done: "unblocked and set"}
	c := &cobra.Command{
		Use:   "unblock",
		Short: "Set a new user PIN of a token, as its security officer, after the old one was locked or lost",
		Long: `Sets a new user PIN of a token, as its security officer, after the old one was locked by
too many wrong tries or was lost. The keys in the token stay.

A running server keeps working; see msl-hsm token pin change --help.`,
		Args: want(),
		RunE: func(*cobra.Command, []string) error {
			return x.run(p, func(t hsm.PINs) error {
				if t.Set() || t.State(hsm.User) == hsm.PINLocked {
					return nil
				}
				return fmt.Errorf("the user of the token %q has no PIN yet: set one with msl-hsm token pin set", t.Label)
			})
		},
	}
	pinFlags(c, &x)
	return c
}

func tokenPINChangeCommand(p *program) *cobra.Command {
	x := pinChange{old: hsm.User, changed: hsm.User, done: "changed"}
	var so bool
	c := &cobra.Command{
		Use:   "change",
		Short: "Change the user PIN of a token, or with --so the security officer's PIN",
		Long: `Changes the user PIN of a token; --pin or keystore.pin gives the old one. With --so it
changes the security officer's PIN; --so-pin gives the old one. The keys in the token stay.

A running server keeps its sessions. It needs the PIN again if it loses them, so put the
new one where keystore.pin says, and run msl-hsm admin reload.`,
		Args: want(),
		RunE: func(*cobra.Command, []string) error {
			if !so && x.oldPIN != "" {
				return exit.Usagef("--so-pin is the PIN of the security officer: add --so to change that, or name the PIN of the user with --pin")
			}
			if so {
				x.old, x.changed = hsm.SecurityOfficer, hsm.SecurityOfficer
			}
			return x.run(p, func(t hsm.PINs) error {
				if so || t.Set() || t.State(hsm.User) == hsm.PINLocked {
					return nil
				}
				return fmt.Errorf("the user of the token %q has no PIN yet: the security officer sets one with msl-hsm token pin set", t.Label)
			})
		},
	}
	pinFlags(c, &x)
	c.Flags().BoolVar(&so, "so", false, "change the PIN of the security officer")
	return c
}

func pinFlags(c *cobra.Command, x *pinChange) {
	soPINFlag(c, &x.oldPIN, "")
	c.Flags().StringVar(&x.newPIN, "new-pin", "", "`SOURCE` of the new PIN, in the same forms")
}

// run reads both PINs and changes one, unless that must fail.
func (x pinChange) run(p *program, fits func(hsm.PINs) error) error {
	if err := errors.Join(notFromEnvironment("--so-pin", x.oldPIN), notFromEnvironment("--new-pin", x.newPIN)); err != nil {
		return err
	}
	c, uri, err := configuredToken(p)
	if err != nil {
		return err
	}
	t, err := hsm.PINsOf(uri)
	if err != nil {
		return keys.NoToken(&c.Keystore, err)
	}
	if err := errors.Join(fits(t), locked(t, x.old)); err != nil {
		return err
	}
	if x.old == hsm.User {
		if x.oldPIN, err = keys.PINSource(&c.Keystore, uri); err != nil {
			return err
		}
	}
	if keys.OrPrompt(x.oldPIN) == "prompt" {
		warnOfTries(p, t, x.old)
	}
	old, changed, err := x.read(t)
	if err != nil {
		return err
	}
	defer old.Close()
	defer changed.Close()
	if err := x.apply(uri, old.Bytes(), changed.Bytes()); err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "%s the PIN of the %s of the token %q; the keys in it stay\n", x.done, x.changed, t.Label)
	if x.changed == hsm.User {
		fmt.Fprintln(p.stdout, "next: put it where keystore.pin says; running servers continue, and use it after msl-hsm admin reload")
	}
	return nil
}

// configuredToken returns the configuration and the URI of its token.
func configuredToken(p *program) (*config.Config, *hsm.URI, error) {
	c, err := p.configure()
	if err != nil {
		return nil, nil, err
	}
	if err := keys.CheckSoftHSM(&c.Keystore); err != nil {
		return nil, nil, err
	}
	uri, err := keys.ResolveOne(&c.Keystore)
	return c, uri, err
}

// locked refuses operations that cannot succeed before it asks for a secret.
func locked(t hsm.PINs, r hsm.Role) error {
	switch {
	case t.State(r) != hsm.PINLocked:
		return nil
	case r == hsm.User:
		return fmt.Errorf("the PIN of the user of the token %q is LOCKED: %w: the security officer sets another with msl-hsm token pin unblock", t.Label, keystore.ErrPIN)
	}
	return fmt.Errorf("the PIN of the security officer of the token %q is LOCKED: %w: nobody can set PINs any more; the keys still work with the user's PIN, and the maker's manual says how to reset the token, which erases it", t.Label, keystore.ErrPIN)
}

// warnOfTries warns someone who is about to type a PIN what a wrong one would do.
func warnOfTries(p *program, t hsm.PINs, r hsm.Role) {
	switch t.State(r) {
	case hsm.PINFinalTry:
		fmt.Fprintf(p.stderr, "warning: only ONE try is left: another wrong PIN of the %s locks the token\n", r)
	case hsm.PINCountLow:
		fmt.Fprintf(p.stderr, "warning: a wrong PIN of the %s was entered before; the token counts failed tries and may lock\n", r)
	}
}

// read reads the two PINs, or none if the token itself asks for them.
func (x pinChange) read(t hsm.PINs) (old, changed *lockedmem.Buffer, err error) {
	if t.Pad() {
		return nil, nil, nil
	}
	if old, err = keys.Secret(keys.OrPrompt(x.oldPIN), fmt.Sprintf("PIN of the %s", x.old)); err != nil {
		return nil, nil, err
	}
	if changed, err = keys.NewSecret(keys.OrPrompt(x.newPIN), fmt.Sprintf("new PIN of the %s", x.changed)); err != nil {
		old.Close()
		return nil, nil, err
	}
	return old, changed, nil
}

func (x pinChange) apply(uri *hsm.URI, old, changed []byte) error {
	if x.old != x.changed {
		return hsm.ResetPIN(uri, old, changed)
	}
	err := hsm.ChangePIN(uri, x.changed, old, changed)
	var e *hsm.Error
	if errors.As(err, &e) && e.Function == "C_Login" && errors.Is(err, keystore.ErrPIN) {
		err = fmt.Errorf("%w; if a change was interrupted before, the new PIN may be valid already", err)
	}
	return err
}
