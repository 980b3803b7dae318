package hsm

import (
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A URI names a module, a PKCS #11 token, an object or any of them as RFC 7512
// writes it. An empty field asks for nothing.
type URI struct {
	Token, Manufacturer, Serial, Model                      string
	LibraryManufacturer, LibraryDescription, LibraryVersion string
	SlotDescription, SlotManufacturer, SlotID               string
	Object, Type                                            string
	ID                                                      []byte

	ModulePath, ModuleName string
	PINSource              string

	// Initialize is that of [Config], for programs that use a token only by its URI. It is not part
	// of the text of a URI.
	Initialize string
}

// An attribute of a URI: its name and its place.
type uriAttribute struct {
	name  string
	value *string
}

func (u *URI) path() []uriAttribute {
	return []uriAttribute{
		{"library-manufacturer", &u.LibraryManufacturer}, {"library-description", &u.LibraryDescription},
		{"library-version", &u.LibraryVersion}, {"slot-manufacturer", &u.SlotManufacturer},
		{"slot-description", &u.SlotDescription}, {"slot-id", &u.SlotID},
		{"manufacturer", &u.Manufacturer}, {"model", &u.Model}, {"serial", &u.Serial}, {"token", &u.Token},
		{"object", &u.Object}, {"type", &u.Type},
	}
}

func (u *URI) query() []uriAttribute {
	return []uriAttribute{
		{"module-path", &u.ModulePath}, {"module-name", &u.ModuleName}, {"pin-source", &u.PINSource},
	}
}

// The characters that need no percent sign (RFC 7512 section 2.3).
const (
	uriPlain      = "-._~:[]@!$'()*+,=ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	uriPathPlain  = uriPlain + "&"
	uriQueryPlain = uriPlain + "/?|"
)

// ParseURI reads a pkcs11: URI. It refuses unknown attributes, except vendor attributes
// (x-…), which it ignores, and it refuses pin-value: a PIN in a URI ends up in logs and
// process lists.
func ParseURI(s string) (*URI, error) {
	scheme, rest, _ := strings.Cut(s, ":")
	if !strings.EqualFold(scheme, "pkcs11") || len(scheme) == len(s) { // RFC 3986 section 3.1
		return nil, fmt.Errorf("hsm: URI does not start with %s", "pkcs11:")
	}
	path, query, _ := strings.Cut(rest, "?")
	u := &URI{}
	id := ""
	if err := parseAttributes(path, ";", uriPathPlain, append(u.path(), uriAttribute{"id", &id})); err != nil {
		return nil, err
	}
	if id != "" {
		u.ID = []byte(id)
	}
	if err := parseAttributes(query, "&", uriQueryPlain, u.query()); err != nil {
		return nil, err
	}
	return u, u.check()
}

func parseAttributes(s, separator, plain string, known []uriAttribute) error {
	if s == "" {
		return nil
	}
	seen := map[string]bool{}
	for _, part := range strings.Split(s, separator) {
		name, raw, ok := strings.Cut(part, "=")
		switch {
		case !ok || name == "":
			return fmt.Errorf("hsm: URI has an attribute without a name or a value")
		case name == "pin-value":
			return fmt.Errorf("hsm: URI has a pin-value: secrets do not belong in a URI, use pin-source=file:/path")
		case seen[name]:
			return fmt.Errorf("hsm: URI has two attributes %q", name)
		}
		seen[name] = true
		value, err := unescape(raw, plain)
		if err != nil {
			return fmt.Errorf("hsm: URI attribute %q: %w", name, err)
		}
		if err := setAttribute(known, name, value); err != nil {
			return err
		}
	}
	return nil
}

func setAttribute(known []uriAttribute, name, value string) error {
	for _, a := range known {
		if a.name == name {
			*a.value = value
			return nil
		}
	}
	if strings.HasPrefix(name, "x-") {
		return nil
	}
	return fmt.Errorf("hsm: URI has an unknown attribute %q", name)
}

func unescape(s, plain string) (string, error) {
	for _, c := range []byte(s) {
		if c != '%' && strings.IndexByte(plain, c) < 0 {
			return "", fmt.Errorf("character %q must be written %%%02X", c, c)
		}
	}
	return url.PathUnescape(s)
}

func (u *URI) check() error {
	if u.SlotID != "" {
		if _, err := strconv.ParseUint(u.SlotID, 10, 32); err != nil {
			return fmt.Errorf("hsm: URI has slot-id %q, which is not a number", u.SlotID)
		}
	}
	switch u.Type {
	case "", "public", "private", "cert", "secret-key", "data":
	default:
		return fmt.Errorf("hsm: URI has type %q, want public, private, cert, secret-key or data", u.Type)
	}
	if u.ModulePath != "" && !filepath.IsAbs(u.ModulePath) {
		return fmt.Errorf("hsm: URI has module-path %q, which is not absolute", u.ModulePath)
	}
	if strings.ContainsAny(u.ModuleName, "/\\") {
		return fmt.Errorf("hsm: URI has module-name %q, which is a path", u.ModuleName)
	}
	return nil
}

// String writes the URI that ParseURI reads.
func (u *URI) String() string {
	var path, query []string
	for _, a := range u.path() {
		if *a.value != "" {
			path = append(path, a.name+"="+escape(*a.value, uriPathPlain))
		}
	}
	if len(u.ID) > 0 {
		path = append(path, "id="+escape(string(u.ID), ""))
	}
	for _, a := range u.query() {
		if *a.value != "" {
			query = append(query, a.name+"="+escape(*a.value, uriQueryPlain))
		}
	}
	s := "pkcs11:" + strings.Join(path, ";")
	if len(query) > 0 {
		s += "?" + strings.Join(query, "&")
	}
	return s
}

func escape(s, plain string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if strings.IndexByte(plain, c) >= 0 {
			b.WriteByte(c)
		} else {
			b.WriteString("%" + strings.ToUpper(hex.EncodeToString([]byte{c})))
		}
	}
	return b.String()
}

// module finds the library that the URI names.
func (u *URI) module() (string, error) {
	switch {
	case u.ModulePath != "":
		return u.ModulePath, nil
	case u.ModuleName == "":
		return "", fmt.Errorf("hsm: URI names no module: add ?module-path=/path/to/module.so")
	}
	for _, dir := range []string{
		"/usr/lib/pkcs11", "/usr/lib64/pkcs11", "/usr/lib/softhsm", "/usr/lib64/softhsm", "/usr/local/lib/softhsm",
		"/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib",
	} {
		for _, name := range []string{u.ModuleName + ".so", "lib" + u.ModuleName + ".so"} {
			path := filepath.Join(dir, name)
			if _, err := os.Stat(path); err == nil {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("hsm: no module named %q in the usual places: %w: give its module-path", u.ModuleName, keystore.ErrUnavailable)
}

// Matches reports whether the URI names the token in a slot.
func (u *URI) Matches(s *Slot) bool {
	return s.Err == nil && u.matches(tokenInfo{slot: s.ID, Label: s.Label, Serial: s.Serial, Model: s.Model, ManufacturerID: s.Manufacturer})
}

// matches reports whether the URI's path allows a token.
func (u *URI) matches(t tokenInfo) bool {
	for _, pair := range [][2]string{
		{u.Token, t.Label}, {u.Serial, t.Serial}, {u.Model, t.Model}, {u.Manufacturer, t.ManufacturerID},
		{u.SlotID, strconv.FormatUint(uint64(t.slot), 10)},
	} {
		const padding = " \x00" // of which neither has any that counts
		if pair[0] != "" && strings.TrimRight(pair[0], padding) != strings.TrimRight(pair[1], padding) {
			return false
		}
	}
	return true
}
