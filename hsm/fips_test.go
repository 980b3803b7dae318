package hsm_test

import (
	"os"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/fipstest"
)

// TestFIPS has a store work in a process that may use only what FIPS 140-3 approves: what it
// does in software must not be in the way of what the token does. The long run leaves out
// where the other side of a test is in this process and uses RSA-OAEP with SHA-1, or PKCS #1
// v1.5, as MSL has it; and TestHang, which needs a machine of its own.
func TestFIPS(t *testing.T) {
	if os.Getenv("MSL_SOAK") == "" {
		fipstest.In(t, "only", `^(TestDeadSessions$|TestConformance$/^(sign|seal)$)`, "")
		return
	}
	fipstest.In(t, "on", "^Test", "^(TestFIPS|TestHang)$")
	fipstest.In(t, "only", "^Test", `^(TestFIPS|TestHang|TestAttackPins|TestAttackUnwrappingKeys|TestExchangesOnToken)$|`+
		`^TestConformance$/oaep/unwrap$|^TestConformance$/provisioned/unwrapped|^TestConformance$/vectors`)
}
