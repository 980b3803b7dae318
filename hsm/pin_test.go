package hsm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
)

func TestPINSources(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	t.Setenv("TEST_PIN", "from env")
	good := file("good", "12 34\n", 0o600)
	for source, want := range map[PINSource]string{
		PINSource("file:" + good):                            "12 34",
		PINSource("file://" + good):                          "12 34",
		PINSource(good):                                      "12 34",
		PINSource("file:" + file("crlf", "1234\r\n", 0o400)): "1234",
		PINSource("file:" + file("bare", "1234", 0o600)):     "1234",
		"credential:good":                                    "12 34",
		"env:TEST_PIN":                                       "from env",
	} {
		p, err := source.read()
		if err != nil || string(p.bytes()) != want {
			t.Errorf("%s: %v", source, err)
		}
		p.wipe()
	}
	for source, words := range map[PINSource]string{
		PINSource("file:" + file("group", "1234", 0o640)):                     "chmod 600",
		PINSource("file:" + file("others", "1234", 0o604)):                    "chmod 600",
		PINSource("file:" + file("empty", "", 0o600)):                         "is empty",
		PINSource("file:" + file("newline", "\n", 0o600)):                     "is empty",
		PINSource("file:" + file("long", strings.Repeat("1", 1025), 0o600)):   "more than",
		PINSource("file:" + file("longer", strings.Repeat("1", 9999), 0o600)): "more than",
		PINSource("file:" + dir):                                              "not a regular file",
		PINSource("file:" + dir + "/none"):                                    "no such file",
		"file:/dev/null":                                                      "not a regular file",
		"file:relative":                                                       "want file:",
		"credential:../good":                                                  "want file:",
		"credential:none":                                                     "no such file",
		"env:NOT_SET_ANYWHERE":                                                "is empty",
		"env:":                                                                "want file:",
		"fd:x":                                                                "want file:",
		"fd:987654":                                                           "bad file descriptor",
		"":                                                                    "want file:",
	} {
		_, err := source.read()
		if !errors.Is(err, keystore.ErrPIN) || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v; want %q", source, err, words)
		}
	}
	if _, err := ParsePINSource("1234"); err == nil || strings.Contains(err.Error(), "1234") {
		t.Errorf("a PIN in place of its source: %v", err)
	}
}

func TestPINFromDescriptor(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w.WriteString("1234\n")
	w.Close()
	// One of its own: reading closes it, and r would close that number again.
	own, err := unix.Dup(int(r.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	p, err := PINSource(fmt.Sprintf("fd:%d", own)).read()
	if err != nil || string(p.bytes()) != "1234" {
		t.Errorf("%v", err)
	}
}

// TestPINPrinted checks that no verb prints it, and that it is gone when wiped.
func TestPINPrinted(t *testing.T) {
	p := &pin{lockedmem.Copy([]byte("1234"))}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if text := fmt.Sprintf(verb, p) + fmt.Sprintf(verb, *p); strings.Contains(text, "1234") || strings.Contains(text, "49 50") || strings.Contains(text, "3132") {
			t.Errorf("%s prints %s", verb, text)
		}
	}
	p.wipe()
	p.wipe()
	if len(p.bytes()) != 0 {
		t.Error("the PIN is still there")
	}
}
