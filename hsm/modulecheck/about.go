package modulecheck

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// about asks the module and the token what they are, without a login. A server needs none of
// that, so what is not told is a result and no more.
func (s *step) about() error {
	uri, err := hsm.ParseURI(s.URI)
	if err != nil {
		return err
	}
	slots, err := hsm.Slots(uri.ModulePath, s.Initialize)
	if err != nil {
		return err // in words, where miekg/pkcs11 would crash
	}
	a := About{Module: uri.ModulePath}
	if err := s.describe(&a, uri, slots); err != nil {
		s.of(described, err)
	}
	s.write(event{About: &a})
	return nil
}

// describe asks by miekg/pkcs11, which has the functions for that.
func (s *step) describe(a *About, uri *hsm.URI, slots []hsm.Slot) error {
	p := pkcs11.New(uri.ModulePath)
	if p == nil {
		return fmt.Errorf("modulecheck: PKCS #11 module %s does not load: %w; name the library of the token in module-path", uri.ModulePath, keystore.ErrUnavailable)
	}
	defer p.Destroy()
	if err := p.Initialize(InitializeWith(s.Initialize)...); err != nil {
		return fmt.Errorf("modulecheck: %s: C_Initialize: %w: %w", uri.ModulePath, err, keystore.ErrUnavailable)
	}
	s.write(event{Begins: "C_GetInfo"})
	err := a.ofLibrary(p)
	if i := slices.IndexFunc(slots, func(one hsm.Slot) bool { return uri.Matches(&one) }); i >= 0 {
		s.write(event{Begins: "C_GetMechanismList"})
		err = errors.Join(err, a.ofToken(p, slots[i]))
	}
	return errors.Join(err, p.Finalize())
}

func (a *About) ofLibrary(p *pkcs11.Ctx) error {
	info, err := p.GetInfo()
	if err != nil {
		return fmt.Errorf("modulecheck: C_GetInfo: %w: %w", err, keystore.ErrUnavailable)
	}
	a.Library = fmt.Sprintf("%s %d.%d", padded(info.LibraryDescription), info.LibraryVersion.Major, info.LibraryVersion.Minor)
	a.Manufacturer = padded(info.ManufacturerID)
	a.Cryptoki = fmt.Sprintf("%d.%d", info.CryptokiVersion.Major, info.CryptokiVersion.Minor)
	return nil
}

// ofToken describes the first token that the URI names; which one is used is decided when
// it is opened.
func (a *About) ofToken(p *pkcs11.Ctx, slot hsm.Slot) error {
	a.Token, a.Model = padded(slot.Label), padded(slot.Model)
	t, err := p.GetTokenInfo(slot.ID)
	if err != nil {
		return fmt.Errorf("modulecheck: C_GetTokenInfo: %w: %w", err, keystore.ErrUnavailable)
	}
	a.Firmware = fmt.Sprintf("%d.%d", t.FirmwareVersion.Major, t.FirmwareVersion.Minor)
	a.Sessions = sessions(t.MaxSessionCount)
	a.Mechanisms, err = mechanisms(p, slot.ID)
	return err
}

// InitializeWith are the options of miekg/pkcs11 for a text that C_Initialize gives the
// module, or none for no text.
func InitializeWith(text string) []pkcs11.InitializeOption {
	if text == "" {
		return nil
	}
	return []pkcs11.InitializeOption{pkcs11.InitializeWithReserved(unsafe.Pointer(unsafe.StringData(text + "\x00")))}
}

// padded is a text of fixed length without its padding, which some modules make of zeros.
func padded(s string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(s, "\x00", " ")), " ")
}

// sessions is a maximum in words: 0 is none, and the highest numbers mean that the token
// does not tell, or has none (openCryptoki).
func sessions(n uint) string {
	switch n {
	case 0:
		return "no limit"
	case ^uint(0), ^uint(0) - 1:
		return "not told"
	}
	return fmt.Sprint(n)
}

func mechanisms(p *pkcs11.Ctx, slot uint) ([]string, error) {
	all, err := p.GetMechanismList(slot)
	if err != nil {
		return nil, fmt.Errorf("modulecheck: C_GetMechanismList: %w: %w", err, keystore.ErrUnavailable)
	}
	var names []string
	for _, m := range all {
		names = append(names, hsm.MechanismName(m.Mechanism))
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
