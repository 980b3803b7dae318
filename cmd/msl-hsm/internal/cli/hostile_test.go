package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestHostileText has peers whose text would control a terminal, or display as another
// text, wherever the command prints it.
func TestHostileText(t *testing.T) {
	hostile := "evil\u202e\u009b31m\u2066\u200b\x7f\U000e0041"
	quoted, err := json.Marshal(hostile)
	if err != nil {
		t.Fatal(err)
	}
	inside := fmt.Sprintf(`{"timestamp":1,"messageid":1,"errorcode":1,"internalcode":100000,"errormsg":%s,%s:%s}`, quoted, quoted, quoted)
	message := fmt.Sprintf(`{"entityauthdata":{"scheme":"NONE","authdata":{"identity":%s,%s:1}},"errordata":%q,"signature":"",%s:{%s:true}}`,
		quoted, quoted, base64.StdEncoding.EncodeToString([]byte(inside)), quoted, quoted)
	dir := t.TempDir()
	file, log := filepath.Join(dir, "message"), filepath.Join(dir, "log")
	record := fmt.Sprintf(`{"received":"2026-01-01T00:00:00Z","entity":%s,"kind":"key","provider":"soft","operation":"C_Sign","count":1,"first":"2026-01-01T00:00:00Z","last":"2026-01-01T00:00:00Z","version":"1"}`, quoted)
	for path, text := range map[string]string{file: message, log: record + "\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, message) }))
	defer peer.Close()
	for _, args := range [][]string{
		{"inspect", file},
		{"inspect", file, "--json"},
		{"failures", "--file", log},
		{"failures", "--file", log, "--json"},
		{"failures", "--file", log, "--by", "entity"},
		{"send", peer.URL, "--identity", "device", "--no-encryption", "--no-integrity", "-v"},
		{hostile},
		{"key", hostile},
		{"serve", "--config", hostile},
	} {
		var out, errs bytes.Buffer
		runCheaply(args, strings.NewReader(""), &out, &errs)
		all := out.String() + errs.String()
		if i := strings.IndexFunc(all, func(r rune) bool { return !strconv.IsPrint(r) && r != '\n' && r != '\t' }); i >= 0 {
			t.Errorf("%q prints %q", args, all)
		}
		if !strings.Contains(all, "evil") && args[0] != "send" {
			t.Errorf("%q says nothing of it: %s", args, all)
		}
	}
}
