package serverside

import (
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// TestSealedApart has entities from before and after a change of keystore.session-keys.
func TestSealedApart(t *testing.T) {
	entity := func(name string, form byte, revoked bool) state.EntityRecord {
		mac := keystore.Sealed{Algorithm: keystore.HMACSHA256, KEKVersion: 1, Form: form, Wrapped: make([]byte, 64), Tag: make([]byte, 32)}
		return state.EntityRecord{Identity: name, Revoked: revoked, PSK: &msl.SealedPSK{MAC: mac.Bytes()}}
	}
	all := []state.EntityRecord{entity("token", 0, false), entity("memory", 0x80, false), entity("gone", 0, true), {Identity: "rsa"}}
	for sessions, first := range map[string]string{"": "memory", "token": "memory", config.SessionsInMemory: "token"} {
		c := &config.Config{}
		c.Keystore.SessionKeys = sessions
		warning := sealedApart(c, all)
		for _, want := range []string{"of 1 entity", `"` + first + `"`, "msl-hsm entity remove", "msl-hsm entity add"} {
			if !strings.Contains(warning, want) {
				t.Errorf("session keys %q: %q lacks %q", sessions, warning, want)
			}
		}
		if w := sealedApart(c, all[2:]); w != "" {
			t.Errorf("session keys %q: %q", sessions, w)
		}
	}
}
