package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// withoutWrapping PSKFILE OUT writes the keys as a device has them that derives the
// wrapping key.
func withoutWrapping(ts *testscript.TestScript, _ bool, args []string) {
	k, err := readPSK(ts.MkAbs(args[0]))
	ts.Check(err)
	k.Wrapping = nil
	ts.Check(k.write(ts.MkAbs(args[1])))
}

func TestNewPSK(t *testing.T) {
	one, two := newPSK("a", false), newPSK("a", false)
	if one.derived() || string(one.Wrapping) == string(two.Wrapping) || len(one.Wrapping) != 16 {
		t.Errorf("wrapping keys %x and %x are not drawn", one.Wrapping, two.Wrapping)
	}
	if !newPSK("a", true).derived() {
		t.Error("the wrapping key is not derived")
	}
}
