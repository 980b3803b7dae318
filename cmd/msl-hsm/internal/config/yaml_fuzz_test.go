package config

import (
	"strings"
	"testing"
)

// FuzzDecodeYAML reads anything: an error names the file and a place, on one line.
func FuzzDecodeYAML(f *testing.F) {
	for _, text := range []string{
		"", "server: {identity: a}", "a: *b", "\ta", "{", "---\n---\na", "keystore: {sessions: 1.5}", "'", "%", "a: 'x\nb", "? a\n: b", "&a [*a]", "server: !!binary x",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		err := DecodeYAML("file.yaml", []byte(text), Default())
		if err != nil && (!strings.HasPrefix(err.Error(), "file.yaml:") || strings.Contains(strings.SplitN(err.Error(), " ", 2)[0], ":0:")) {
			t.Errorf("%q: %v", text, err)
		}
	})
}
