package hsm_test

import (
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/internal/uncut"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestUncut has the end of the process wait for a login, in which SoftHSM writes the file without
// which a token cannot be read.
func TestUncut(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	uri := &hsm.URI{Token: token.Label, ModulePath: m.Path}
	m.Inject(hsmtest.Fault{Function: "C_Login", Hang: true})
	ended := make(chan error, 1)
	go func() {
		s, err := hsm.Open(hsm.Config{URI: uri.String(), PIN: token.PIN})
		if err == nil {
			err = s.Close()
		}
		ended <- err
	}()
	for m.Counters().Calls["C_Login"] == 0 {
		time.Sleep(time.Millisecond)
	}
	if resume, whole := uncut.Wait(5 * time.Millisecond); whole {
		resume()
		t.Error("the process would end during a login")
	}
	m.Inject()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	resume, whole := uncut.Wait(time.Minute)
	if resume(); !whole {
		t.Error("after the login, the process does not end")
	}
}
