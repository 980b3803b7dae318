package serverside

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestAccessLine has a stranger put whatever it likes into a line: it is one line of JSON, and
// not a long one.
func TestAccessLine(t *testing.T) {
	for name, text := range map[string]string{
		"long": strings.Repeat("a", 1<<20), "long, of two bytes each": "a" + strings.Repeat("ä", 1<<19),
		"lines": "a\n{\"msg\":\"message\",\"entity\":\"admin\"}\r\n", "not UTF-8": "\xff\xfe", "a terminal": "\x1b[2J",
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			l := accessLog{log: slog.New(slog.NewJSONHandler(&out, nil)), level: slog.LevelInfo}
			l.write(t.Context(), msl.Served{Identity: text, User: text, Scheme: text, KeyExchange: text, Err: errors.New(text)})
			if n := bytes.Count(out.Bytes(), []byte("\n")); n != 1 || out.Len() > 6*longestText {
				t.Errorf("%d lines of %d bytes", n, out.Len())
			}
			if bytes.ContainsRune(out.Bytes(), 0x1b) {
				t.Error("a terminal would obey")
			}
			var line struct{ Entity string }
			if err := json.Unmarshal(out.Bytes(), &line); err != nil || len(text) < longestText && name != "not UTF-8" && line.Entity != text {
				t.Errorf("%q: %v", line.Entity, err)
			}
		})
	}
}
