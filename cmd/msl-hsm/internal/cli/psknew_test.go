package cli

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// withoutWrapping PSKFILE OUT writes the keys as a device has them that derives the
// wrapping key.
func withoutWrapping(ts *testscript.TestScript, _ bool, args []string) {
	k, err := keys.ReadPSK(ts.MkAbs(args[0]))
	ts.Check(err)
	k.Wrapping = nil
	ts.Check(k.Write(ts.MkAbs(args[1])))
}

func TestNewPSK(t *testing.T) {
	one, two := entityauth.NewPSKFile("a", false), entityauth.NewPSKFile("a", false)
	if one.Derived() || string(one.Wrapping) == string(two.Wrapping) || len(one.Wrapping) != 16 {
		t.Errorf("wrapping keys %x and %x are not drawn", one.Wrapping, two.Wrapping)
	}
	if !entityauth.NewPSKFile("a", true).Derived() {
		t.Error("the wrapping key is not derived")
	}
}
