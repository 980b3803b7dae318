//go:build cgo && !nopkcs11

package isolated_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/isolated"
)

// TestLoginCrashes has a library crash or hang when it is given the PIN, which the token may have
// counted: that is an answer which is not clear. Before it was given nothing was counted.
func TestLoginCrashes(t *testing.T) {
	token := newToken(t)
	for name, c := range map[string]struct {
		fault   hsmtest.Fault
		unclear bool
	}{
		"crash":        {hsmtest.Fault{Function: "C_Login", Crash: true}, true},
		"hang":         {hsmtest.Fault{Function: "C_Login", Hang: true}, true},
		"crash before": {hsmtest.Fault{Function: "C_OpenSession", Crash: true}, false},
		"crash after":  {hsmtest.Fault{Function: "C_GenerateKey", Abort: true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := hsmtest.New(t, token.Module)
			m.Inject(c.fault)
			_, err := isolated.Open(isolated.Config{
				Command: child, Settings: settings(t, hsm.Config{URI: strings.Replace(token.URI, token.Module, m.Path, 1)}),
				PIN: pinOf(t, token), Limit: 2 * time.Second,
			})
			if !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrUnclear) != c.unclear {
				t.Errorf("%v; unclear: %t", err, errors.Is(err, keystore.ErrUnclear))
			}
		})
	}
}
