package cli

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestHostileNames registers devices whose names would be obeyed or misread by a terminal, a
// browser, or a reader of logs, and has them send: whatever shows them shows what they are, and
// metrics do not have them at all.
func TestHostileNames(t *testing.T) {
	skipWithRace(t)
	s := newSite(t)
	s.stop()
	s.write("server.yaml", "keystore: {uri: 'soft:server.keys', pin: 'file:pin'}\nserver: {state: server.db, custody: imported, access-log: access.jsonl, audit: {file: audit.jsonl}}\n")
	s.command("key", "create", "--set", "audit")
	s.serve()
	names := []string{
		"evil<script>alert(1)</script>&amp;\"'", "evil\u202egnp.exe\u2066", "evil" + strings.Repeat("ä", 2046),
		"evil\",\"authenticated\":true,\"x\":\"", "evil{msl_hsm=\"1\"} 7", "evil %s%n ${x} `id` $(id)",
	}
	shown := ""
	for i, name := range names {
		psk := s.path(fmt.Sprintf("%d.psk", i))
		shown += s.command("entity", "add", name, "--generate-psk", psk)
		s.run("send", s.url, "--config", s.device("{}"), "--psk-file", psk, "--server-key", s.path("server.pem"), "--data", "x")
		shown += s.command("entity", "revoke", name) + s.command("entity", "unrevoke", name)
	}
	var refused bytes.Buffer
	if code := runCheaply([]string{"entity", "add", "evil\x1b[2J\x1b]0;owned\a\r\n\x7f", "--generate-psk", s.path("x.psk"), "--config", s.path("server.yaml")}, nil, &refused, &refused); code == 0 {
		t.Error("a name of control characters is taken")
	}
	shown += refused.String() + s.command("entity", "list") + s.command("entity", "list", "--json") + s.command("admin", "status", "--json")
	metrics := s.command("admin", "metrics")
	s.stop()
	for _, file := range []string{"access.jsonl", "audit.jsonl"} {
		text, err := os.ReadFile(s.path(file))
		if err != nil {
			t.Fatal(err)
		}
		shown += string(text)
	}
	for line := range strings.Lines(shown) {
		if strings.ContainsFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return !strconv.IsPrint(r) }) {
			t.Errorf("shown as it is: %.300q", line)
		}
	}
	if strings.Count(shown, "evil") < 4*len(names) || strings.Contains(metrics, "evil") {
		t.Errorf("names are shown %d times, in metrics %t", strings.Count(shown, "evil"), strings.Contains(metrics, "evil"))
	}
}
