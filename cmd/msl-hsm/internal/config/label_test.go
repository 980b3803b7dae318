package config

import (
	"strings"
	"testing"
)

func TestCheckLabel(t *testing.T) {
	for label, want := range map[string]string{
		"msl-identity": "", "schlüssel 1/2": "", strings.Repeat("a", 255): "", "": "",
		strings.Repeat("a", 256): "256 bytes is longer than 255",
		"two\nlines":             `"two\u000alines" has control characters`, "tab\t": "control", "\x00": "control", "\x1b[2J": "control",
		"right\u202eleft": `\u202e`, "zero\u200bwidth": "invisible", "half\xc3": "control",
	} {
		err := CheckLabel(label)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", label, err)
		}
	}
}
