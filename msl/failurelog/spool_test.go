package failurelog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// TestSpool keeps unsent failures across the end of the process, in order.
func TestSpool(t *testing.T) {
	bubble(t, func(b *bench) {
		b.config.Spool = filepath.Join(b.TempDir(), "spool")
		b.server.setFail(errAway)
		for _, result := range []string{"CKR_DEVICE_ERROR", "CKR_HOST_MEMORY", "CKR_DEVICE_ERROR"} {
			r := b.start()
			r.Observe(deviceError(result))
			if err := r.Close(); err != nil {
				b.Error(err)
			}
		}
		b.server.setFail(nil)
		before := b.server.count()
		r := b.start()
		b.want("DEVICE_ERROR*2 HOST_MEMORY*1", before+1)
		r.Close()
		if _, err := os.Stat(b.config.Spool); err == nil {
			b.Error("the spool is still there")
		}
	})
}

func TestSpoolInUse(t *testing.T) {
	bubble(t, func(b *bench) {
		b.config.Spool = filepath.Join(b.TempDir(), "spool")
		r := b.start()
		if _, err := Start(b.config); !errors.Is(err, ErrSpoolInUse) {
			b.Errorf("got %v", err)
		}
		r.Close()
		b.start().Close()
	})
}

// TestSpoolDamaged skips lines and counts them.
func TestSpoolDamaged(t *testing.T) {
	for name, c := range map[string]struct {
		spoil         func(lines []string) []string
		arrived       string
		lost, skipped uint32
	}{
		"good":        {func(l []string) []string { return l }, "DEVICE_ERROR*1 HOST_MEMORY*1", 0, 0},
		"cut off":     {func(l []string) []string { return []string{l[0], l[1][:len(l[1])/2]} }, "DEVICE_ERROR*1", 0, 1},
		"zeros":       {func(l []string) []string { return []string{strings.Repeat("\x00", 100), l[1]} }, "HOST_MEMORY*1", 0, 1},
		"other words": {func(l []string) []string { return []string{strings.Replace(l[0], "C_Sign", "secret", 1), l[1]} }, "HOST_MEMORY*1", 0, 1},
		"other names": {func(l []string) []string { return []string{`{"pin":"1234"}`, l[1]} }, "HOST_MEMORY*1", 0, 1},
		"nothing":     {func(l []string) []string { return []string{"", "{}", l[1]} }, "HOST_MEMORY*1", 0, 2},
		"counts":      {func(l []string) []string { return []string{`{"lost":3,"skipped":2}`, l[1]} }, "HOST_MEMORY*1", 3, 2},
		"twice":       {func(l []string) []string { return []string{l[1], l[1]} }, "HOST_MEMORY*2", 0, 0},
		"long line":   {func(l []string) []string { return []string{l[0], strings.Repeat("x", maxLine), l[1]} }, "DEVICE_ERROR*1", 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(b *bench) {
				b.config.Spool = filepath.Join(b.TempDir(), "spool")
				b.server.setFail(errAway)
				r := b.start()
				r.Observe(deviceError("CKR_DEVICE_ERROR"))
				r.Observe(deviceError("CKR_HOST_MEMORY"))
				if err := r.Close(); err != nil {
					b.Fatal(err)
				}
				text, err := os.ReadFile(b.config.Spool)
				if err != nil {
					b.Fatal(err)
				}
				lines := c.spoil(strings.Split(strings.TrimSpace(string(text)), "\n"))
				if err := os.WriteFile(b.config.Spool, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
					b.Fatal(err)
				}
				b.server.setFail(nil)
				b.start().Close()
				if got := b.arrived(); got != c.arrived {
					b.Errorf("arrived %q, want %q", got, c.arrived)
				}
				if got := records(b, b.log); got[0].Lost != c.lost || got[0].Skipped != c.skipped {
					b.Errorf("%d lost and %d skipped, want %d and %d", got[0].Lost, got[0].Skipped, c.lost, c.skipped)
				}
			})
		})
	}
}

// TestSpoolBounded fills the spool.
func TestSpoolBounded(t *testing.T) {
	bubble(t, func(b *bench) {
		b.config.Spool = filepath.Join(b.TempDir(), "spool")
		b.server.setFail(errAway)
		r := b.start()
		for n := range 10 * maxPending {
			r.Observe(fmt.Errorf("hsm: key %q version %d: C_Sign: CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT: %w", "x", n+1, keystore.ErrLost))
		}
		r.Close()
		info, err := os.Stat(b.config.Spool)
		if err != nil || info.Size() > maxSpool || info.Mode().Perm() != 0o600 {
			b.Errorf("got %v, error %v", info, err)
		}
		b.server.setFail(nil)
		b.start().Close()
		if got := records(b, b.log); len(got) != maxPending || got[0].Lost != 9*maxPending {
			b.Errorf("%d records, %d lost", len(got), got[0].Lost)
		}
	})
}

// TestSpoolUnwritable has failures for a minute while the spool cannot be written: the log says that
// once, and once that it is over.
func TestSpoolUnwritable(t *testing.T) {
	bubble(t, func(b *bench) {
		dir := filepath.Join(b.TempDir(), "spools")
		if err := os.Mkdir(dir, 0o700); err != nil {
			b.Fatal(err)
		}
		var log strings.Builder
		b.config.Spool, b.config.Log = filepath.Join(dir, "spool"), slog.New(slog.NewTextHandler(&log, nil))
		b.server.setFail(errAway)
		r := b.start()
		fail := func(times int) {
			for range times {
				r.Observe(deviceError("CKR_DEVICE_ERROR"))
				time.Sleep(2 * saveEvery)
			}
		}
		if err := os.Rename(dir, dir+"2"); err != nil {
			b.Fatal(err)
		}
		fail(30)
		if err := os.Rename(dir+"2", dir); err != nil {
			b.Fatal(err)
		}
		fail(3)
		if err := r.Close(); err != nil {
			b.Error(err)
		}
		if lost, back := strings.Count(log.String(), "cannot be written"), strings.Count(log.String(), "can be written again"); lost != 1 || back != 1 {
			b.Errorf("told %d times, and %d times that it is over:\n%s", lost, back, &log)
		}
	})
}

// fillSpool is the process that TestSpoolKill kills.
func fillSpool(path string) {
	r, err := Start(Config{Identity: "x", Transport: stuck{}, Spool: path})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for n := 1; ; n++ {
		r.Observe(deviceError("CKR_DEVICE_ERROR"))
		r.Observe(fmt.Errorf("hsm: key %q version %d: %w", "x", n%100+1, keystore.ErrLost))
		if n == 1 {
			for info, err := os.Stat(path); err != nil || info.Size() == 0; info, err = os.Stat(path) {
				time.Sleep(time.Millisecond)
			}
			fmt.Println("spooled")
		}
	}
}

// TestSpoolKill kills a process (SIGKILL) while it writes its spool, and finds the
// spool complete.
func TestSpoolKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spool")
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "FAILURELOG_TEST_SPOOL="+path)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 8)
	if _, err := io.ReadFull(out, line); err != nil || !bytes.HasPrefix(line, []byte("spooled")) {
		t.Errorf("got %q, error %v", line, err)
	}
	c.Process.Kill()
	c.Wait()
	h, log := newHandler(t)
	r, err := Start(Config{Identity: "x", Transport: &direct{handler: h}, Spool: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	got := records(t, log)
	if len(got) < 1 || got[0].Result != "CKR_DEVICE_ERROR" || got[0].Skipped != 0 {
		t.Errorf("got %+v", got)
	}
}

// TestSpoolPlanted plants links at the paths used for writing a spool.
func TestSpoolPlanted(t *testing.T) {
	dir := t.TempDir()
	path, victim := filepath.Join(dir, "spool"), filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{".new", ".tmp", "~"} {
		if err := os.Symlink(victim, path+suffix); err != nil {
			t.Fatal(err)
		}
	}
	s, _, err := openSpool(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := s.write(Report{Lost: 1}); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(victim); string(text) != "old" {
		t.Errorf("the spool went to another file: %q, %v", text, err)
	}
	if text, err := os.ReadFile(path); string(text) != "{\"lost\":1}\n" {
		t.Errorf("the spool holds %q, %v", text, err)
	}
}
