package config

import (
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/safetext"
)

// longestLabel is how many bytes the label of a key that is made may have.
const longestLabel = 255

// longestTokenLabel is the size of the field for it in CK_TOKEN_INFO.
const longestTokenLabel = 32

// CheckTokenLabel refuses the label of a PKCS #11 token to be made if it is too long, or as
// CheckLabel does.
func CheckTokenLabel(label string) error {
	if len(label) > longestTokenLabel {
		return exit.Usagef("a token label of %d bytes is longer than %d: choose a shorter one", len(label), longestTokenLabel)
	}
	return CheckLabel(label)
}

// CheckLabel refuses the label of a key to be made if it is too long, or has characters that
// end a line, steer a terminal or cannot be seen: others could not name the key. Keys that
// have such a label are listed, and can be destroyed.
func CheckLabel(label string) error {
	if len(label) > longestLabel {
		return exit.Usagef("a label of %d bytes is longer than %d: choose a shorter one", len(label), longestLabel)
	}
	if safetext.String(label) != label {
		return exit.Usagef("the label \"%s\" has control characters or invisible ones: choose another", safetext.String(label))
	}
	return nil
}
