//go:build cgo && !nopkcs11

package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/miekg/pkcs11"
	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/hsm/modulecheck"
	"github.com/msl-hsm/msl-hsm/keystore"
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
			slots, err := slotsOf(path, text)
			if err != nil {
				return err
			}
			return list(p.stdout, asJSON, slots, "SLOT\tLABEL\tSERIAL\tMODEL\tPIN\tFLAGS", func(s slot) []any {
				label := s.Label
				if !s.Initialized {
					label = "(free)"
				}
				return []any{s.Slot, label, s.Serial, s.Model, s.PIN, strings.Join(s.Flags, ",")}
			})
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

// modulePath is the module, and the text for its C_Initialize.
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

// slotsOf queries the module directly, without a login, so that it also lists a token
// that is locked or not initialized.
func slotsOf(path, text string) (slots []slot, err error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("PKCS #11 module: %w: %w; install it, or correct module-path", err, keystore.ErrUnavailable)
	}
	module := pkcs11.New(path)
	if module == nil {
		return nil, fmt.Errorf("PKCS #11 module %s does not load: %w; name the library of the token in module-path", path, keystore.ErrUnavailable)
	}
	defer module.Destroy()
	if err := module.Initialize(modulecheck.InitializeWith(text)...); err != nil {
		return nil, fmt.Errorf("PKCS #11 module %s: %w: %w", path, err, keystore.ErrUnavailable)
	}
	defer func() { err = errors.Join(err, module.Finalize()) }()
	ids, err := module.GetSlotList(false)
	if err != nil {
		return nil, fmt.Errorf("PKCS #11 module %s: %w: %w", path, err, keystore.ErrUnavailable)
	}
	slots = []slot{}
	for _, id := range ids {
		slots = append(slots, slotOf(module, id))
	}
	return slots, nil
}

func slotOf(module *pkcs11.Ctx, id uint) slot {
	s := slot{Slot: id, Flags: []string{}}
	if info, err := module.GetSlotInfo(id); err == nil {
		s.Description = strings.TrimSpace(info.SlotDescription)
	}
	t, err := module.GetTokenInfo(id)
	if err != nil {
		s.Flags = append(s.Flags, "no-token")
		return s
	}
	s.Label, s.Model, s.Serial = strings.TrimSpace(t.Label), strings.TrimSpace(t.Model), strings.TrimSpace(t.SerialNumber)
	s.Initialized = t.Flags&pkcs11.CKF_TOKEN_INITIALIZED != 0
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
