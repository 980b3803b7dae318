package cli

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// tpmDevice registers an ECC key in a TPM at the site, and returns the configuration
// of its device.
func (s *site) tpmDevice(p *tpmtest.TPM) (config, uri string) {
	s.Helper()
	uri = serveTPM(s.T, p) + "&state=" + s.path("tpm.keys")
	s.run("key", "create", "device", "--algorithm", "ecdsa-p256", "--keystore", uri)
	s.write("device.pem", s.run("key", "show", "device", "--public", "--keystore", uri))
	s.command("entity", "add", "sensor", "--public-key", s.path("device.pem"))
	return s.device("keystore: {uri: '"+uri+"'}",
		"client:", "  url: "+s.url, "  identity: sensor", "  key: device", "  server-key: server.pem", "  state: device.db",
		"  custody: imported", "  key-exchanges: [DIFFIE_HELLMAN]", // an RSA pair of a TPM would take most of the time
		"  anti-rollback: true", "  agent: {listen: 'unix:agent.sock'}"), uri
}

// copyOf reads a state file, which puts back restores.
func (s *site) copyOf(name string) (back func()) {
	s.Helper()
	old, err := os.ReadFile(s.path(name))
	if err != nil {
		s.Fatal(err)
	}
	return func() { s.write(name, string(old)) }
}

const rolledBack = "the state is an old copy"

// TestAgentTPM switches the TPM of an agent off, restores an old state, and clears the
// TPM.
func TestAgentTPM(t *testing.T) {
	skipWithRace(t)
	p := tpmtest.Start(t)
	s := newSite(t)
	config, uri := s.tpmDevice(p)
	a := s.agent(config)
	programs(a, 20)
	programs(a, 20, "Msl-Non-Replayable: true")
	p.Kill()
	a.answers("after a loss of power", "Msl-Non-Replayable: true")
	p.Freeze(t)
	p.Kill()
	programs(a, 10)
	if n := a.log.count(newToken); n != 1 {
		t.Errorf("%d sessions", n)
	}
	a.stop()

	restore := s.copyOf("device.db")
	a = s.agent(config)
	a.answers("the session goes on", "Msl-Non-Replayable: true")
	a.stop()
	if a.log.count(newToken)+a.log.count(rolledBack) != 0 {
		t.Errorf("the session did not last: %s", a.log)
	}
	restore()
	a = s.agent(config)
	a.answers("a new session", "Msl-Non-Replayable: true")
	if a.log.count(newToken) != 1 || a.log.count(rolledBack) != 1 {
		t.Errorf("an old copy: %s", a.log)
	}

	p.Clear(t)
	r, text := a.post("x")
	a.refuses(500, false, "msl-hsm tpm init", r, text)
	if !strings.Contains(text, "cleared") {
		t.Errorf("a cleared TPM: %s", text)
	}
	a.stop()
	var out, trouble strings.Builder
	if code := runCheaply([]string{"send", "--config", config}, nil, &out, &trouble); code != exit.Keystore || !strings.Contains(trouble.String(), "cleared") {
		t.Errorf("send after it: exit code %d, %s", code, trouble.String())
	}
	// With new keys the device is back, and begins a session with another counter.
	if err := os.Remove(s.path("tpm.keys")); err != nil {
		t.Fatal(err)
	}
	s.run("key", "create", "device", "--algorithm", "ecdsa-p256", "--keystore", uri)
	s.write("device.pem", s.run("key", "show", "device", "--public", "--keystore", uri))
	s.command("entity", "remove", "sensor")
	s.command("entity", "add", "sensor", "--public-key", s.path("device.pem"))
	for _, want := range []string{"msl-hsm: the TPM no longer has the counter 0x1804d53 of " + s.path("device.db") + ", as after it was cleared: a new session begins\n", ""} {
		trouble.Reset()
		code := runCheaply([]string{"send", "--config", config, "--data", "x", "--non-replayable"}, nil, &out, &trouble)
		if code != 0 || trouble.String() != want {
			t.Errorf("send with new keys: exit code %d, %s, want %s", code, trouble.String(), want)
		}
	}
}

// TestAntiRollback uses send, which is a process for each message.
func TestAntiRollback(t *testing.T) {
	skipWithRace(t)
	p := tpmtest.Start(t)
	s := newSite(t)
	config, _ := s.tpmDevice(p)
	send := func(args ...string) (code int, trouble string) {
		t.Helper()
		var out, errors strings.Builder
		code = runCheaply(append([]string{"send", "--config", config, "-v", "--data", "x", "--non-replayable"}, args...), nil, &out, &errors)
		if code == 0 && out.String() != "x" {
			t.Errorf("got %q", out.String())
		}
		return code, errors.String()
	}
	sends := func(what, want, never string, args ...string) {
		t.Helper()
		if code, trouble := send(args...); code != 0 || !strings.Contains(trouble, want) || strings.Contains(trouble, never) {
			t.Errorf("%s: exit code %d, %s", what, code, trouble)
		}
	}
	const reused, fresh = "master token: re-used", "master token: new"
	sends("the first", fresh, rolledBack)
	sends("the second", reused, rolledBack)
	restore := s.copyOf("device.db")
	sends("the third", reused, rolledBack)
	restore()
	sends("an old copy", rolledBack, reused)
	sends("after it", reused, rolledBack)
	p.Kill()
	sends("after a loss of power", reused, rolledBack)
	sends("switched off", fresh, rolledBack, "--anti-rollback=false")
	sends("switched on again", "not bound to the counter", reused)
	sends("another counter", "is bound to the counter", reused, "--anti-rollback=0x1804d54")

	for args, want := range map[string]string{
		"--anti-rollback=7": "an NV index", "--anti-rollback --keystore soft:x": "a TPM that counts",
	} {
		all := strings.Fields(args)
		if strings.Contains(args, "soft:") {
			s.run("key", "create", "device", "--algorithm", "ecdsa-p256", "--keystore", "soft:"+s.path("x"), "--pin", "file:"+s.path("pin"))
			all = append(all[:2], "soft:"+s.path("x"), "--pin", "file:"+s.path("pin"))
		}
		if code, trouble := send(all...); code == 0 || !strings.Contains(trouble, want) {
			t.Errorf("%s: exit code %d, %s", args, code, trouble)
		}
	}
}

// serveTPM lets processes use a TPM that the test can switch off and clear.
func serveTPM(t *testing.T, p *tpmtest.TPM) (uri string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "tpm") // the address of a socket has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	t.Cleanup(func() { l.Close(); p.Kill(); group.Wait(); os.RemoveAll(dir) })
	group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			chip, err := p.Dial()
			if err != nil {
				t.Error(err)
			} else {
				group.Go(func() { io.Copy(chip, conn); chip.Close() })
				io.Copy(conn, chip)
				chip.Close()
			}
			conn.Close()
		}
	})
	return (&tpm.URI{Unix: l.Addr().String()}).String()
}
