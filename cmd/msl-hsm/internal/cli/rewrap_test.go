//go:build cgo && !nopkcs11

package cli

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A rewrapSite is a server on a token with trusted wrapping, and devices with pre-shared keys.
type rewrapSite struct {
	*testing.T
	dir  string
	url  string
	sent atomic.Int64
}

// TestRewrapKilled has devices send while the keys of their server are rotated, their
// pre-shared keys are sealed again by commands that are killed, and older versions go. No
// message fails, and at the end no device needs new keys.
func TestRewrapKilled(t *testing.T) {
	if os.Getenv("MSL_SOAK") == "" {
		t.Skip("takes long; MSL_SOAK=1 runs it")
	}
	if err := findSoftHSM(); err != nil {
		t.Skip(err)
	}
	s := &rewrapSite{T: t, dir: t.TempDir()}
	if err := madeToken.put(s.dir, makeServerToken); err != nil {
		t.Fatal(err)
	}
	write(t, s.dir, "c.yaml", "keystore: {softhsm: dev, pin: 'file:dev/pin', trusted-wrapping: true}\n"+
		"server: {identity: server, key: msl-identity, state: dev/server.db}\n")
	s.must("key", "rotate", "--so-pin", "file:dev/so-pin")
	const devices = 30
	for i := range devices {
		s.must("entity", "add", fmt.Sprintf("device-%d", i), "--generate-psk", fmt.Sprintf("%d.psk", i))
	}
	s.serve()
	ctx, stop := context.WithCancel(t.Context())
	var sending sync.WaitGroup
	for i := range 2 {
		sending.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				s.send(i, fmt.Sprintf("%d-%d.db", i, n/5)) // five messages, and then another session
			}
		})
	}
	for range 3 {
		s.must("key", "rotate", "--so-pin", "file:dev/so-pin")
		for range 6 {
			s.killed("key", "rewrap")
		}
		s.must("key", "rewrap")
		s.must("key", "retire", "--yes", "--force")
	}
	stop()
	sending.Wait()
	for i := range devices {
		s.send(i, fmt.Sprintf("last-%d.db", i))
	}
	if out := s.must("key", "list"); strings.Count(out, "msl-seal-") != 3 {
		t.Errorf("older sealing keys are left:\n%s", out)
	}
	t.Logf("%d messages", s.sent.Load())
}

func (s *rewrapSite) command(args ...string) *exec.Cmd {
	c := exec.Command("msl-hsm", append(args, "--config", "c.yaml")...)
	c.Dir = s.dir
	return c
}

func (s *rewrapSite) must(args ...string) string {
	s.Helper()
	out, err := s.command(args...).CombinedOutput()
	if err != nil {
		s.Fatalf("%v: %v: %s", args, err, out)
	}
	return string(out)
}

// killed runs a command, and kills it at some time.
func (s *rewrapSite) killed(args ...string) {
	s.Helper()
	c := s.command(args...)
	if err := c.Start(); err != nil {
		s.Fatal(err)
	}
	timer := time.AfterFunc(time.Duration(rand.IntN(1500))*time.Millisecond, func() { _ = c.Process.Kill() })
	defer timer.Stop()
	_ = c.Wait()
}

// serve runs the server until the test ends.
func (s *rewrapSite) serve() {
	s.Helper()
	c := s.command("serve", "--listen", "127.0.0.1:0", "--ready-file", "ready")
	if err := c.Start(); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	for range 600 {
		if text, err := os.ReadFile(filepath.Join(s.dir, "ready")); err == nil && len(text) > 0 {
			s.url = strings.TrimSpace(string(text))
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.Fatal("the server does not become ready")
}

// send sends a message of a device, with that state.
func (s *rewrapSite) send(device int, state string) {
	out, err := s.command("send", s.url, "--psk-file", fmt.Sprintf("%d.psk", device), "--server-key", "server.pem", "--state", state, "--data", "x").CombinedOutput()
	if err != nil {
		s.Errorf("device %d: %v: %s", device, err, out)
	}
	s.sent.Add(1)
}
