package cli

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// attesting is the configuration of a server that allows one value of PCR 4.
func (s *site) attesting(onChange string, pcr []byte) {
	s.write("server.yaml", "keystore: {uri: 'soft:server.keys', pin: 'file:pin'}\n"+
		"server: {state: server.db, custody: imported, audit: {file: audit.jsonl}, enrollment: {state: enroll.db, event-log: ask, on-change: "+
		onChange+", pcr: {4: "+fmt.Sprintf("%x", pcr)+"}}}\n")
}

// eventually waits until an agent has logged something.
func (a *running) eventually(what string) {
	a.Helper()
	for deadline := time.Now().Add(time.Minute); a.log.count(what) == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			a.Fatalf("%s is not logged: %s", what, a.log)
		}
	}
}

// TestAgentAttests has a machine start in another state than is allowed: that is noted, then
// allowed again, and then the machine is revoked for it.
func TestAgentAttests(t *testing.T) {
	s := newSite(t)
	s.stop()
	before := []tpmtest.BootEvent{{PCR: 4, Type: 0xd, Data: "kernel-1"}}
	after := append(before, tpmtest.BootEvent{PCR: 4, Type: 0xd, Data: "init=/bin/sh"})
	s.attesting("flag", tpmtest.PCRAfter(4, before...))
	s.command("key", "create", "--set", "audit")
	s.command("state", "init")
	s.serve()
	plain := tpmtest.Serve(t)
	tpmtest.MeasureServed(t, plain, before...)
	uri := plain + "&state=" + s.path("tpm.keys")
	s.run("tpm", "init", "--ek", "p256", "--keystore", uri)
	id := s.deviceID(uri)
	s.command("enrollment", "approve", id, "--name", "box")
	s.run("tpm", "enroll", "--keystore", uri, "--pcr", "4", "--server", s.url+"/enroll", "--server-key", s.path("server.pem"))
	file := s.device("keystore: {uri: '"+uri+"'}", "client:", "  url: "+s.url+"/", "  server-key: server.pem", "  custody: imported", "  key-exchanges: [TPM_IMPORT]",
		"  agent: {listen: 'unix:agent.sock'}", "  attest: {every: 1s, pcr: [4], event-log: boot.log}")

	s.write("boot.log", string(tpmtest.EventLog(before...)))
	a := s.agent(file)
	a.eventually(`"msg":"attested to the state of this machine"`)
	a.answers("beside that")
	a.stop()
	s.attestsUnlogged(file)
	tpmtest.MeasureServed(t, plain, after[1:]...)
	s.write("boot.log", string(tpmtest.EventLog(after...)))
	a = s.agent(file)
	a.eventually("device is not allowed")
	a.answers("flagged, and still served")
	s.lists("box", "enrolled", "left the policy: it was started in a state that is not allowed")
	s.stop()

	s.attesting("flag", tpmtest.PCRAfter(4, after...))
	s.serve()
	a.stop()
	a = s.agent(file)
	a.eventually(`"msg":"attested to the state of this machine"`)
	s.stop()

	s.attesting("revoke", tpmtest.PCRAfter(4, before...))
	s.serve()
	a.stop()
	a = s.agent(file)
	a.eventually("device is revoked")
	if r, _ := a.post("revoked"); r.StatusCode != 403 {
		t.Errorf("status %d", r.StatusCode)
	}
	a.stop()
	s.lists("box", "revoked", "")
	s.stop() // what is in the audit log comes a little later than the answer
	if text := contents(t, s.path("audit.jsonl")); strings.Count(string(text), "left the policy: ") != 3 || strings.Count(string(text), "is in an allowed state again") != 1 {
		t.Errorf("%s", text)
	}
}

// attestsUnlogged has a machine attest whose event log is missing, and then empty: each is said
// once by the agent, and the first one by the server.
func (s *site) attestsUnlogged(file string) {
	s.Helper()
	const unlogged = "this machine attests without the event log of its start"
	if err := os.Remove(s.path("boot.log")); err != nil {
		s.Fatal(err)
	}
	a := s.agent(file)
	a.eventually("boot.log: no such file or directory; correct the path")
	a.eventually(`"msg":"attested to the state of this machine"`)
	s.write("boot.log", "")
	a.eventually("boot.log is empty")
	if n := a.log.count(unlogged); n != 2 || a.log.count("client.attest.event-log: ") != 2 {
		s.Errorf("it is said %d times: %s", n, a.log)
	}
	a.stop()
	show := s.command("enrollment", "show", "box")
	if n := strings.Count(show, "attests without the event log of its start"); n != 1 || !strings.Contains(show, `"unlogged": "`) {
		s.Errorf("it is recorded %d times: %s", n, show)
	}
}

// deviceID is the EK hash of a TPM.
func (s *site) deviceID(uri string) string {
	s.Helper()
	return strings.Fields(s.run("tpm", "status", "--keystore", uri))[2]
}

// lists checks what the operator sees of a device.
func (s *site) lists(name, state, why string) {
	s.Helper()
	if list := s.command("enrollment", "list", "--name", name); !strings.Contains(list, state) || !strings.Contains(list, why) {
		s.Error(list)
	}
}
