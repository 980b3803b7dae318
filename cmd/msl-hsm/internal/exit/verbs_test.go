package exit

import (
	"errors"
	"testing"
)

// TestVerbsOnce explains an error again that a running server explained, as its readiness: the verb
// is named once.
func TestVerbsOnce(t *testing.T) {
	for _, said := range []string{
		"the PIN is locked: the token's security officer sets a new one",
		"the user has no PIN: the security officer sets the first one",
		"C_Login: CKR_PIN_EXPIRED: the token requires a new PIN first",
	} {
		once := OneLine(errors.New(said))
		if again := OneLine(errors.New("the server is not ready: " + once)); once == said || again != "the server is not ready: "+once {
			t.Errorf("%q, and again %q", once, again)
		}
	}
}
