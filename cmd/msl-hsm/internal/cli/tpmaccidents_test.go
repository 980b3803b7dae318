package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// TestAccidents kills each verb of a device after each of its TPM commands, and clears the TPM
// there: every day after a few of them. A verb that was killed works when it is run again, and
// after a clear an error is one line that says what makes the device work again.
func TestAccidents(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	skipWithRace(t)
	s := newSite(t)
	s.stop()
	s.write("server.yaml", "keystore: {uri: 'soft:server.keys', pin: 'file:pin'}\n"+
		"server: {state: server.db, custody: imported, enrollment: {state: enroll.db, monitor: true}}\n")
	s.command("state", "init")
	s.serve()
	soak := os.Getenv("MSL_SOAK") != ""
	kinds := map[string]func(*mishap, func([]byte) ([]byte, error)) error{"kill": (*mishap).kill, "clear": (*mishap).clear}
	for _, c := range []struct {
		verb, kind string
		everyDay   int // after which command, or 0 for none
	}{
		{"init", "kill", 0}, {"enroll", "kill", 23}, {"send", "kill", 0}, {"renew", "kill", 37}, {"quote", "kill", 0},
		{"init", "clear", 0}, {"enroll", "clear", 0}, {"send", "clear", 13}, {"renew", "clear", 0}, {"quote", "clear", 5},
	} {
		t.Run(c.verb+" "+c.kind, func(t *testing.T) {
			meet := func(n int) (done bool) {
				m := mishap{T: t, site: s, happen: kinds[c.kind], name: fmt.Sprint(c.verb, c.kind, n)}
				return m.meet(c.verb, n)
			}
			if !soak && c.everyDay > 0 {
				meet(c.everyDay)
			}
			for n := 1; soak && !meet(n); n++ {
			}
		})
	}
}

// A mishap is a device to which something happens.
type mishap struct {
	*testing.T
	site   *site
	name   string
	uri    string
	happen func(m *mishap, send func([]byte) ([]byte, error)) error

	mu    sync.Mutex
	left  int // commands before it happens, or 0 for never
	child *os.Process
}

func (m *mishap) command(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	answer, err := send(command)
	if m.left > 0 {
		if m.left--; m.left == 0 {
			err = errors.Join(err, m.happen(m, send))
		}
	}
	return answer, err
}

// kill is the end of the program, which gets no answer.
func (m *mishap) kill(func([]byte) ([]byte, error)) error {
	return errors.Join(m.child.Kill(), errors.New("killed"))
}

// clear is somebody else who clears the TPM, of which the program hears nothing.
func (m *mishap) clear(send func([]byte) ([]byte, error)) error {
	answer, err := send(tpmtest.ClearCommand())
	if err == nil && tpmtest.Code(answer) != 0 {
		m.Errorf("TPM2_Clear: %#x", tpmtest.Code(answer))
	}
	return err
}

// verb returns the arguments of a verb.
func (m *mishap) verb(name string) []string {
	server := []string{"--server-key", m.site.path("server.pem")}
	return append([]string{"--keystore", m.uri}, map[string][]string{
		"init": {"tpm", "init", "--ek", "p256"}, "init --replace": {"tpm", "init", "--ek", "p256", "--replace"},
		"enroll": append([]string{"tpm", "enroll", "--server", m.site.url + "/enroll"}, server...),
		"renew":  append([]string{"tpm", "renew", "--server", m.site.url + "/enroll"}, server...),
		"send":   append([]string{"send", m.site.url, "--data", "x", "--state", m.site.path(m.name + ".db"), "--anti-rollback"}, server...),
		"quote":  {"tpm", "quote", "--nonce", strings.Repeat("ab", 16)},
	}[name]...)
}

// run runs a verb in a process of its own, to which something happens after so many commands, if
// any. It returns its exit code, -1 if it was killed, and what it says, which is one line at most.
func (m *mishap) run(verb string, after int) (code int, line string) {
	m.Helper()
	var trouble bytes.Buffer
	c := exec.Command("msl-hsm", m.verb(verb)...)
	c.Dir, c.Stderr = m.site.dir, &trouble
	m.mu.Lock()
	err := c.Start()
	m.left, m.child = after, c.Process
	m.mu.Unlock()
	if err != nil {
		m.Fatal(err)
	}
	c.Wait()
	line, code = trouble.String(), c.ProcessState.ExitCode()
	if code > 0 && (strings.Count(line, "\n") != 1 || !strings.HasPrefix(line, "msl-hsm: ")) {
		m.Errorf("%s: exit code %d, %s", verb, code, line)
	}
	return code, line
}

// works runs verbs that work.
func (m *mishap) works(when string, verbs ...string) {
	m.Helper()
	for _, verb := range verbs {
		code, line := m.run(verb, 0)
		if code != 0 && verb == "init" && strings.HasSuffix(line, "; to give up these keys, add --replace\n") {
			code, line = m.run("init --replace", 0)
		}
		if code != 0 {
			m.Fatalf("%s: %s: exit code %d, %s", when, verb, code, line)
		}
	}
}

// advice is what a line says to do.
var advice = regexp.MustCompile(`run msl-hsm |add --replace|enroll this device again|try again|delete |restart |new state file`)

// meet takes a device to a verb, has it happen after command n of that, and follows what is
// advised. It reports whether the verb was done before.
func (m *mishap) meet(verb string, n int) (done bool) {
	m.Helper()
	m.uri = tpmtest.ServeQuirky(m.T, tpmtest.Start(m.T), m.command) + "&state=" + m.site.path(m.name+".keys")
	life := []string{"init", "enroll", "send", "renew", "quote"}
	for _, before := range life {
		if before == verb {
			break
		}
		m.works("before", before)
	}
	code, line := m.run(verb, n)
	m.mu.Lock()
	done, m.left = m.left > 0, 0
	m.mu.Unlock()
	when := fmt.Sprintf("after command %d (%d, %s)", n, code, strings.TrimSpace(line))
	switch {
	case done && verb == "init":
		m.works("nothing happened", "enroll", "send")
	case done:
		m.works("nothing happened", "send")
	case code == -1: // killed
		m.works(when, verb)
		if verb == "init" {
			m.works(when, "enroll")
		}
		m.works(when, "send", "renew", "quote", "send")
	default:
		for _, next := range []string{verb, "quote", "send"} {
			if code, line := m.run(next, 0); code != 0 && len(advice.FindAllString(line, -1)) != 1 {
				m.Errorf("%s: %s has not one piece of advice: %s", when, next, line)
			}
		}
		m.works(when, "init", "enroll", "send", "renew", "quote", "send")
	}
	return done
}
