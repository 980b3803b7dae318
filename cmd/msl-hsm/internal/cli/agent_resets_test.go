package cli

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync/atomic"
	"testing"

	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// TestAgentResets switches the chip of an agent off before each command, or after it and before
// its answer, of what it does to begin a session and to send in one: the program gets its answer,
// or is told to try again and gets it then.
func TestAgentResets(t *testing.T) {
	skipWithRace(t)
	step := int64(11) // of the commands, of which MSL_SOAK tries all
	if os.Getenv("MSL_SOAK") != "" {
		step = 1
	}
	p := tpmtest.Start(t)
	s := newSite(t)
	s.tpmDevice(p)
	var left, after atomic.Int64
	uri := tpmtest.ServeQuirky(t, p, func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
		if left.Add(-1) != 0 {
			return send(command)
		}
		if after.Load() == 1 {
			send(command)
		}
		p.Kill()
		return nil, errors.New("switched off")
	}) + "&state=" + s.path("tpm.keys")
	a := s.agent(s.device("keystore: {uri: '"+uri+"'}",
		"client:", "  url: "+s.url, "  identity: sensor", "  key: device", "  server-key: server.pem", "  state: device.db",
		"  custody: imported", "  key-exchanges: [DIFFIE_HELLMAN]", "  anti-rollback: true", "  agent: {listen: 'unix:agent.sock'}"))
	for _, begins := range []bool{false, true} {
		for late := range int64(2) {
			after.Store(late)
			for n, met := int64(1), true; met; n += step {
				a.answers("before")
				if begins {
					r, text := a.do(http.MethodDelete, a.base, nil, "Msl-Session: forget")
					if r.StatusCode != http.StatusNoContent {
						t.Fatalf("status %d, %s", r.StatusCode, text)
					}
				}
				left.Store(n)
				r, text := a.post("x", "Msl-Non-Replayable: true")
				met = left.Swap(0) <= 0
				if r.StatusCode != http.StatusOK && r.Header.Get("Retry-After") == "" {
					t.Errorf("begins %t, late %d, command %d: status %d, %s", begins, late, n, r.StatusCode, text)
				}
				a.answers(fmt.Sprint("after command ", n), "Msl-Non-Replayable: true")
			}
		}
	}
}
