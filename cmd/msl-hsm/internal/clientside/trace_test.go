package clientside

import (
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/msl"
)

// TestExplainNobody explains the refusal of a server whose scheme proves no identity.
func TestExplainNobody(t *testing.T) {
	err := Explain(&msl.PeerError{Response: msl.Fail, Code: -1, InternalCode: -1}, config.Default())
	if !strings.HasPrefix(err.Error(), "the server refused the message: ") {
		t.Error(err)
	}
}
