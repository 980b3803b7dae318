//go:build linux

package cli

import (
	"bytes"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// TestOccupiedTPM has another program keep a TPM for too long: the error says that.
func TestOccupiedTPM(t *testing.T) {
	t.Parallel()
	at := tpmtest.Serve(t) + "&timeout=100ms"
	uri, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	other, err := net.Dial("unix", uri.Query().Get("unix"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	var out, text bytes.Buffer
	code := runCheaply([]string{"tpm", "init", "--keystore", at + "&state=" + filepath.Join(t.TempDir(), "keys")}, strings.NewReader(""), &out, &text)
	if want := "another program may be using it: end that, or try again later; if there is none, restart the TPM\n"; code != 4 || !strings.HasSuffix(text.String(), want) {
		t.Errorf("exit code %d, %q", code, &text)
	}
}

// TestWaitingForTPM has another program keep a TPM with one user at a time until a verb shows that it
// waits for it. Then the verb gets it, and the line is gone.
func TestWaitingForTPM(t *testing.T) {
	t.Parallel()
	at := tpmtest.Serve(t) + "&timeout=20s"
	uri, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	socket := uri.Query().Get("unix")
	state := filepath.Join(t.TempDir(), "keys")
	for _, args := range [][]string{
		{"key", "create", "own", "--algorithm", "ecdsa-p256"}, {"tpm", "init"}, {"tpm", "unlock"},
	} {
		other, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		screen, program := newTerminal(t)
		ended := make(chan string)
		go func() {
			var shown strings.Builder
			for p := make([]byte, 1000); !strings.HasSuffix(shown.String(), "\x04end"); {
				n, err := screen.Read(p)
				if shown.Write(p[:n]); err != nil {
					break
				}
				if strings.Contains(shown.String(), "waiting for the TPM, which another program may be using …") {
					other.Close()
				}
			}
			ended <- shown.String()
		}()
		var out bytes.Buffer
		code := runCheaply(append(args, "--keystore", at+"&state="+state), strings.NewReader(""), &out, program)
		program.WriteString("\x04end")
		shown := <-ended
		if code != 0 || !strings.HasPrefix(shown, clearLine+"waiting for the TPM, which another program may be using …"+clearLine) {
			t.Errorf("%v: exit code %d, %q, %q", args, code, out.String(), shown)
		}
		other.Close()
	}
}
