package boltkv

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

const killVariable = "BOLTKV_TEST_KILL"

// TestKill kills a process (SIGKILL) with many writers, and finds everything that it
// reported as written, and every change complete.
func TestKill(t *testing.T) {
	if path := os.Getenv(killVariable); path != "" {
		writeForEver(t, path)
	}
	for round := range 5 {
		path := filepath.Join(t.TempDir(), "file")
		c := exec.Command(os.Args[0], "-test.run=^TestKill$")
		c.Env = append(os.Environ(), killVariable+"="+path)
		out, err := c.StdoutPipe()
		if err = errors.Join(err, c.Start()); err != nil {
			t.Fatal(err)
		}
		var told []string
		for lines := bufio.NewScanner(out); lines.Scan(); {
			told = append(told, lines.Text())
			if len(told) == 50+97*round {
				c.Process.Kill()
			}
		}
		c.Wait()
		if len(told) < 50 {
			t.Fatalf("%q", told)
		}
		lookForAll(t, openTest(t, path, layout()), told)
	}
}

func lookForAll(t *testing.T, d *DB, told []string) {
	t.Helper()
	err := d.View(t.Context(), func(r kv.Reader) error {
		for _, key := range told {
			if v, err := r.Get("first", []byte(key)); err != nil || v == nil {
				return fmt.Errorf("%q is lost: %w", key, err)
			}
		}
		for p, err := range kv.All(r, "first", nil, nil) {
			if err != nil {
				return err
			}
			if v, err := r.Get("second", p.Key); err != nil || v == nil {
				return fmt.Errorf("half of %q is lost: %w", p.Key, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// writeForEver is the process that is killed. It prints each key, in one write, once it
// is on the disk.
func writeForEver(t *testing.T, path string) {
	d := openTest(t, path, layout())
	for writer := range 8 {
		go func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("%d of writer %d", i, writer)
				err := d.Update(t.Context(), func(tx kv.Tx) error {
					return errors.Join(tx.Put("first", []byte(key), nil), tx.Put("second", []byte(key), nil))
				})
				if err != nil {
					os.Exit(1)
				}
				os.Stdout.WriteString(key + "\n")
			}
		}()
	}
	select {}
}
