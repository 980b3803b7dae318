package cli

import (
	"net/http"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// TestAgentRenewed renews the keys of a machine while its agent runs, and puts the old ones
// back: the agent begins its sessions with the present keys.
func TestAgentRenewed(t *testing.T) {
	skipWithRace(t)
	p := tpmtest.Start(t)
	s := newSite(t)
	s.stop()
	s.write("server.yaml", "keystore: {uri: 'soft:server.keys', pin: 'file:pin'}\n"+
		"server: {state: server.db, custody: imported, enrollment: {state: enroll.db}}\n")
	s.command("state", "init")
	s.serve()
	uri := serveTPM(t, p) + "&state=" + s.path("tpm.keys")
	server := []string{"--keystore", uri, "--server", s.url + "/enroll", "--server-key", s.path("server.pem")}
	s.run("tpm", "init", "--ek", "p256", "--keystore", uri)
	s.command("enrollment", "approve", s.deviceID(uri), "--name", "box")
	s.run(append([]string{"tpm", "enroll"}, server...)...)
	a := s.agent(s.device("keystore: {uri: '"+uri+"'}", "client:", "  url: "+s.url+"/", "  server-key: server.pem", "  custody: imported",
		"  key-exchanges: [TPM_IMPORT]", "  agent: {listen: 'unix:agent.sock'}"))
	a.answers("as enrolled")
	back := s.copyOf("tpm.keys.identity")
	s.run(append([]string{"tpm", "renew"}, server...)...)
	a.answers("in the same session")
	a.forget()
	a.answers("with the new key")
	back()
	a.forget()
	r, text := a.post("x")
	if r.StatusCode != http.StatusForbidden || !strings.Contains(text, "run msl-hsm tpm enroll") || strings.Contains(text, "entity add") {
		t.Errorf("with the old key: status %d, %s", r.StatusCode, text)
	}
	p.Kill()
	s.run(append([]string{"tpm", "enroll"}, server...)...)
	a.answers("as advised")
}

// forget ends the session of an agent.
func (a *running) forget() {
	a.Helper()
	if r, text := a.do(http.MethodDelete, a.base, nil, "Msl-Session: forget"); r.StatusCode != http.StatusNoContent {
		a.Fatalf("status %d, %s", r.StatusCode, text)
	}
}
