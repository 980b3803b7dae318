package hsm

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// TestRestartAfterClose has a recovery restart a module that the last store left meanwhile: it
// stays finalized.
func TestRestartAfterClose(t *testing.T) {
	if err := (&module{}).restart(time.Second); !errors.Is(err, errClosed) {
		t.Error(err)
	}
}

// TestTokensApart wants advice that tells tokens apart which a URI matches.
func TestTokensApart(t *testing.T) {
	for _, c := range []struct{ one, two, want string }{
		{"11", "12", "add ;serial= to the URI"},
		{"11", "11", `"hsm" serial 11 slot 2; add ;slot-id= to the URI`},
		{"", "", "slot 2; add ;slot-id= to the URI"},
		{"11", "", "slot 2; add ;slot-id= to the URI"},
	} {
		got := apart([]tokenInfo{{slot: 1, Label: "hsm", Serial: c.one}, {slot: 2, Label: "hsm", Serial: c.two}})
		if !strings.HasSuffix(got, c.want) {
			t.Errorf("serials %q and %q: %s", c.one, c.two, got)
		}
	}
}
