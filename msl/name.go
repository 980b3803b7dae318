package msl

import (
	"errors"
	"fmt"

	"golang.org/x/text/unicode/norm"
)

// CanonicalName returns the form in which names of entities and users are compared: the
// Unicode Normalization Form C (UAX #15; MSL wiki, "Encoding"). An é may be one code
// point or two; the name is the same.
//
// Names are sent, and bound to keys, as their owners write them: a name in a token, a key
// exchange or a sealed key is never rewritten. A [State] and a [Directory] therefore
// receive names as they were sent and compare them in this form; applications receive
// this form.
func CanonicalName(name string) string { return norm.NFC.String(name) }

// MaxName is how many bytes the name of an entity or a user may have. A [State] stores
// entries under it, so a token issued for a longer name could not be used.
const MaxName = 4096

// checkName refuses the name of an entity that is too long, or that means nobody.
func checkName(name string) error {
	if name == "" {
		return errors.New("the entity has no name")
	}
	if len(name) > MaxName {
		return fmt.Errorf("a name of %d bytes is longer than %d", len(name), MaxName)
	}
	return nil
}

// sameName reports whether two names are those of one entity or user.
func sameName(a, b string) bool { return a == b || CanonicalName(a) == CanonicalName(b) }
