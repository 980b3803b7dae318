package msl_test

import (
	"os"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/fipstest"
)

// TestFIPS has devices with pre-shared keys talk to a server, also on a WebSocket, in a process
// that may use only what FIPS 140-3 approves. The long run is of everything, where Go only
// takes its own cryptography from the module.
func TestFIPS(t *testing.T) {
	skipWithRace(t)
	fipstest.In(t, "only", `^(TestFlows|TestRestart)$/^PSK|^TestChannelServices$`, "")
	if os.Getenv("MSL_SOAK") != "" {
		fipstest.In(t, "on", "^Test", "^TestFIPS$")
	}
}
