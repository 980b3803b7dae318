package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestMessages reads files of texts for users.
func TestMessages(t *testing.T) {
	for name, test := range map[string]struct {
		text      string
		wanted    []string // languages
		want      string   // text for a wrong password, or
		wrong     string   // the error
		languages string
	}{
		"a file":              {"en:\n  5007: Wrong.\nde:\n  EMAILPASSWORD_INCORRECT: Falsch.\n  FAIL: Nein.\n", []string{"de-AT"}, "Falsch.", "", "en de"},
		"by response":         {"no:\n  USERDATA_REAUTH: Logg inn igjen.\n", []string{"nb"}, "Logg inn igjen.", "", "no"},
		"several lines":       {"en:\n  5007: |\n    One\n    two\n", nil, "One\ntwo\n", "", "en"},
		"a text like a word":  {"en:\n  5007: no\n", nil, "no", "", "en"},
		"comments alone":      {"# en:\n", nil, "", "", ""},
		"no language":         {"en:\n  5007: x\nenglish!:\n  5007: x\n", nil, "", `m.yaml:4:3: "english!" is not a language: want a BCP 47 tag`, ""},
		"no error":            {"en:\n  5007: x\n  5006: x\n", nil, "", `m.yaml:3:3: unknown error "5006": want`, ""},
		"twice":               {"en:\n  5007: x\n  105007: x\n", nil, "", `m.yaml:3:3: there are two texts for 105007 in en`, ""},
		"twice by name":       {"en:\n  5007: x\n  5007: x\n", nil, "", `m.yaml:3:3: there are two texts`, ""},
		"no text":             {"en:\n  5007:\n", nil, "", `m.yaml:2:8: 5007 in en has no value`, ""},
		"an empty text":       {"en:\n  5007: ''\n", nil, "", `m.yaml:2:3: the text for 5007 is empty`, ""},
		"a list":              {"- en\n", nil, "", `m.yaml:1:1: want languages, as in "en:"`, ""},
		"no errors":           {"en: Wrong.\n", nil, "", `m.yaml:1:5: want errors with their texts`, ""},
		"errors and sections": {"en:\n  5007: {x: y}\n", nil, "", `m.yaml:2:9: 5007 in en must be a text`, ""},
		"not YAML":            {"en: [\n", nil, "", `m.yaml: line 1`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "m.yaml")
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := (&Server{Messages: path}).ReadMessages()
			if test.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), test.wrong) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%v, want %s", err, test.wrong)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := c.UserMessage(msl.ErrEmailPasswordIncorrect, test.wanted); got != test.want || strings.Join(c.Languages(), " ") != test.languages {
				t.Errorf("%q of %v", got, c.Languages())
			}
		})
	}
	if c, err := (&Server{}).ReadMessages(); c != nil || err != nil {
		t.Error(c, err)
	}
	if _, err := (&Server{Messages: "absent.yaml"}).ReadMessages(); err == nil {
		t.Error("a file that is not there")
	}
}

// FuzzMessages reads any file as texts for users: it fails with one line, or has a text
// for each language.
func FuzzMessages(f *testing.F) {
	for _, seed := range []string{"", "en:\n  5007: x\n", "en: {FAIL: x}\nde: {FAIL: y}", "en: &a {FAIL: x}\nde: *a", "<<: {en: {FAIL: x}}", "? [en]\n: {FAIL: x}", "en: {? {a: b} : x}", "en: {FAIL: !!binary eA==}", "- x", "\x00", "en: {5007: 1, 105007: 2}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseMessages("m.yaml", []byte(text))
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q", err)
			}
			return
		}
		for _, tag := range c.Languages() {
			_ = c.UserMessage(msl.ErrEmailPasswordIncorrect, []string{tag})
		}
	})
}
