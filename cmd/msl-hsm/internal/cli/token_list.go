//go:build cgo && !nopkcs11

package cli

import (
	"errors"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"
	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/hsm"
)

// A slot is what a module reports about one of its slots.
type slot struct {
	Slot        uint     `json:"slot"`
	Description string   `json:"description"`
	Label       string   `json:"label"`
	Model       string   `json:"model"`
	Serial      string   `json:"serial"`
	Initialized bool     `json:"initialized"`
	PIN         string   `json:"pin"` // set, not set, low, final try or locked
	Flags       []string `json:"flags"`
}

func tokenListCommand(p *program) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the slots and tokens of a module",
		Args:  want(),
		RunE: func(*cobra.Command, []string) error {
			path, text, err := p.modulePath()
			if err != nil {
				return err
			}
			all, err := hsm.Slots(path, text)
			if err != nil {
				return err
			}
			slots, unread := tokensIn(all)
			err = list(p.stdout, asJSON, slots, "SLOT\tLABEL\tSERIAL\tMODEL\tPIN\tFLAGS", func(s slot) []any {
				label := s.Label
				if s.free() {
					label = "(free)"
				}
				return []any{s.Slot, label, s.Serial, s.Model, s.PIN, strings.Join(s.Flags, ",")}
			})
			return errors.Join(err, unread)
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

// free reports whether a token can be made in the slot.
func (s *slot) free() bool { return !s.Initialized && !slices.Contains(s.Flags, "not-read") }

// modulePath returns the module, and the text for its C_Initialize.
func (p *program) modulePath() (path, text string, err error) {
	c, err := p.configure()
	if err != nil {
		return "", "", err
	}
	if err := keys.CheckSoftHSM(&c.Keystore); err != nil {
		return "", "", err
	}
	uri, err := keys.Resolve(&c.Keystore)
	if err != nil {
		return "", "", err
	}
	if uri.ModulePath == "" {
		return "", "", exit.Usagef("key store %s names no module-path: add ?module-path=/path/to/module.so", uri)
	}
	return uri.ModulePath, c.Keystore.Initialize, nil
}

// tokensIn are the rows of the slots; unread says which tokens there cannot be read.
func tokensIn(all []hsm.Slot) (rows []slot, unread error) {
	rows = []slot{}
	for _, s := range all {
		rows = append(rows, slotOf(s))
		unread = errors.Join(unread, s.Unread())
	}
	return rows, unread
}

func slotOf(t hsm.Slot) slot {
	s := slot{Slot: t.ID, Description: strings.TrimSpace(t.Description), Flags: []string{}}
	switch {
	case t.Empty():
		s.Flags = append(s.Flags, "no-token")
		return s
	case t.Err != nil:
		s.Flags = append(s.Flags, "not-read")
		return s
	}
	s.Label, s.Model, s.Serial = strings.TrimSpace(t.Label), strings.TrimSpace(t.Model), strings.TrimSpace(t.Serial)
	s.Initialized = t.Initialized()
	s.PIN = pinState(t.Flags)
	for _, f := range []struct {
		flag uint
		name string
	}{
		{pkcs11.CKF_LOGIN_REQUIRED, "login-required"}, {pkcs11.CKF_WRITE_PROTECTED, "write-protected"},
		{pkcs11.CKF_PROTECTED_AUTHENTICATION_PATH, "pin-pad"}, {pkcs11.CKF_USER_PIN_TO_BE_CHANGED, "pin-to-be-changed"},
		{pkcs11.CKF_SO_PIN_COUNT_LOW, "so-pin-tries-low"}, {pkcs11.CKF_SO_PIN_FINAL_TRY, "so-pin-final-try"},
		{pkcs11.CKF_SO_PIN_LOCKED, "so-pin-locked"},
	} {
		if t.Flags&f.flag != 0 {
			s.Flags = append(s.Flags, f.name)
		}
	}
	return s
}

// pinState describes how many tries of a PIN remain, as reported by the token.
func pinState(flags uint) string {
	switch {
	case flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return "LOCKED"
	case flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		return "FINAL TRY"
	case flags&pkcs11.CKF_USER_PIN_COUNT_LOW != 0:
		return "wrong before"
	case flags&pkcs11.CKF_USER_PIN_INITIALIZED != 0:
		return "set"
	}
	return "not set"
}
