package hsm_test

import (
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// TestSlowCalls opens a token that is slow, and not stuck: operations take many calls, which
// together take longer than one may.
func TestSlowCalls(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	token := hangToken(t)
	m := hsmtest.New(t, token.Module)
	m.Inject(hsmtest.Fault{Delay: 12 * time.Millisecond})
	const limit = 300 * time.Millisecond
	s := patiently(t, func() (*hsm.Store, error) {
		return hsm.Open(hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN, CallTimeout: limit})
	})
	defer s.Close()
	all := patiently(t, func() (all []keystore.Info, err error) {
		if !outlasts(limit, func() { all, err = s.List() }) {
			t.Error("the keys were listed too fast to show anything")
		}
		return all, err
	})
	if len(all) == 0 {
		t.Error("no keys are listed")
	}
}
