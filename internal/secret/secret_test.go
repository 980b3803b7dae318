package secret

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func put(t *testing.T, dir, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"file:/a": "file:/a", "file:a b": "file:a b", "file:///a%20b": "file:/a b", "file:////a": "file:/a",
		"fd:0": "fd:0", "credential:pin": "credential:pin", "prompt": "prompt", "env:A": "env:A",
		"file:": "", "file://host/a": "", "file://a": "", "file:///%zz": "", "fd:": "", "fd:-1": "", "fd:9999999999": "",
		"credential:": "", "credential:a/b": "", "credential:..": "", "credential:.": "", "prompt:": "", "prompt:x": "",
		"env:": "", "env:A=B": "", "": "", "1234": "", "/a": "", "FILE:/a": "",
	} {
		got, err := Parse(text)
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
		if err != nil && text != "" && strings.Contains(err.Error(), "1234") {
			t.Errorf("the error repeats the text: %v", err)
		}
	}
}

// FuzzParse checks that what is taken is taken again and stays as it is.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"file:/a", "file:///a%20b", "file:////a", "fd:3", "credential:a", "env:A", "prompt", "1234"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		if path, isFile := s.File(); isFile && strings.HasPrefix(path, "//") {
			t.Errorf("%q became %q, which reads as a URI", text, s)
		}
		if again, err := Parse(string(s)); again != s || err != nil {
			t.Errorf("%q became %q and then %q, %v", text, s, again, err)
		}
	})
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	t.Setenv("TEST_SECRET", "from env")
	put(t, dir, "credential", "from systemd\n", 0o400)
	for source, want := range map[string]string{
		"file:" + put(t, dir, "line", "12 34\n", 0o600):      "12 34",
		"file:" + put(t, dir, "dos", "1234\r\n", 0o600):      "1234",
		"file:" + put(t, dir, "bare", "1234", 0o600):         "1234",
		"file:" + put(t, dir, "two", "1\n\n", 0o600):         "1\n",
		"file:" + put(t, dir, "full", "12345678\r\n", 0o600): "12345678",
		"credential:credential":                              "from systemd",
		"env:TEST_SECRET":                                    "from env",
	} {
		b, err := Source(source).Read("secret", max(8, len(want)))
		if err != nil || string(b.Bytes()) != want {
			t.Errorf("%s: %q, %v", source, b.Bytes(), err)
		}
		b.Close()
	}
}

func TestReadRefused(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	for source, want := range map[string]string{
		"file:" + put(t, dir, "group", "1", 0o640):                       "chmod 600",
		"file:" + put(t, dir, "empty", "", 0o600):                        "it is empty",
		"file:" + put(t, dir, "newline", "\r\n", 0o600):                  "it is empty",
		"file:" + put(t, dir, "long", "123456789", 0o600):                "it has more than 8 bytes",
		"file:" + put(t, dir, "longer", "12345678\r\nx", 0o600):          "it has more than 8 bytes",
		"file:" + put(t, dir, "line", "123456789\r\n2", 0o600):           "it has more than 8 bytes",
		"file:" + put(t, dir, "huge", strings.Repeat("1", 1<<20), 0o600): "it has more than 8 bytes",
		"file:" + dir:           "not a regular file",
		"file:" + dir + "/none": "no such file",
		"file:/dev/null":        "not a regular file",
		"credential:pin":        "LoadCredential=, or, if this is not the service, name another source",
		"env:NOT_SET_ANYWHERE":  "it is empty",
		"fd:987654":             "bad file descriptor",
	} {
		b, err := Source(source).Read("secret", 8)
		if b != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", source, err, want)
		}
	}
}

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	path := put(t, dir, "keys", "12345678", 0o600)
	b, err := ReadFile(path, 8)
	if err != nil || string(b.Bytes()) != "12345678" {
		t.Errorf("%q, %v", b.Bytes(), err)
	}
	b.Close()
	var long TooLong
	if b, err := ReadFile(path, 7); b != nil || !errors.As(err, &long) || long != 7 {
		t.Errorf("a byte too long: %v", err)
	}
	if b, err := ReadFile(put(t, dir, "empty", "", 0o600), 7); err != nil || b.Len() != 0 {
		t.Errorf("an empty file: %v", err)
	}
}
