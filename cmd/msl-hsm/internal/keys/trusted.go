//go:build cgo && !nopkcs11

package keys

import (
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// An Officer is a token used with its security officer: new sealing keys are trusted
// wrapping keys.
type Officer struct {
	*hsm.Store
	pin *lockedmem.Buffer
}

// OpenOfficer opens the token in this process, after checking the security officer's PIN,
// which is nil if the token itself asks for it, and is closed with the store.
func OpenOfficer(c *config.Config, uri *hsm.URI, pin *lockedmem.Buffer) (Officer, error) {
	if err := hsm.CheckPIN(uri, hsm.SecurityOfficer, pin.Bytes()); err != nil {
		return Officer{}, NoToken(&c.Keystore, err)
	}
	s, err := openToken(&c.Keystore)
	return Officer{s, pin}, err
}

// Create makes the next version of a key.
func (o Officer) Create(label string, a keystore.Algorithm) (keystore.Version, error) {
	if a != keystore.SealSession256 && a != keystore.SealWrapping256 {
		return o.Store.Create(label, a)
	}
	v, err := o.CreateTrusted(label, a, o.pin.Bytes())
	if err != nil && !errors.Is(err, keystore.ErrPIN) {
		err = fmt.Errorf("%w; without --so-pin it is made untrusted, and can be marked with the vendor's tools", err)
	}
	return v, err
}

// Trust marks a version of a sealing key as a trusted wrapping key.
func (o Officer) Trust(label string, version uint32) error {
	err := o.MarkTrusted(label, version, o.pin.Bytes())
	if errors.Is(err, errors.ErrUnsupported) {
		return exit.WithCode(fmt.Errorf("%w; make new ones that are trusted with msl-hsm key rotate --so-pin SOURCE, or mark it with the vendor's tools", err), exit.Keystore)
	}
	return err
}

// Close closes the store, and wipes the PIN.
func (o Officer) Close() error {
	o.pin.Close()
	return o.Store.Close()
}
