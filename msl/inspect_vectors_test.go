package msl_test

import (
	"bytes"
	"context"
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// encodings finds every recorded encoding in a file of vectors.
func encodings(v any) (texts []string) {
	switch v := v.(type) {
	case map[string]any:
		text, isText := v["text"].(string)
		if _, isEncoding := v["b64"]; isEncoding && isText {
			return []string{text}
		}
		for _, inner := range v {
			texts = append(texts, encodings(inner)...)
		}
	case []any:
		for _, inner := range v {
			texts = append(texts, encodings(inner)...)
		}
	}
	return texts
}

// opaque matches output that shows a structure only as bytes.
var opaque = regexp.MustCompile(`: [A-Za-z0-9+/=_-]{48,}`)

// TestInspectVectors explains every recorded structure, and leaves nothing as
// Base64.
func TestInspectVectors(t *testing.T) {
	skipWithRace(t)
	for file, least := range map[string]int{
		"entityauthdata": 10, "keyx": 20, "userauthdata": 3, "tokens": 15, "jwk": 6, "envelopes": 3, "errors": 0,
	} {
		var all any
		if err := json.Unmarshal(readFile(t, "spec/"+file+".json"), &all); err != nil {
			t.Fatal(err)
		}
		texts := encodings(all)
		if len(texts) < least {
			t.Errorf("%s: %d encodings", file, len(texts))
		}
		for _, text := range texts {
			parts, err := inspector(t).Inspect(context.Background(), strings.NewReader(text))
			if err != nil {
				t.Errorf("%s: %v\n%.200s", file, err, text)
				continue
			}
			var shown bytes.Buffer
			msl.WriteText(&shown, parts)
			if line := opaque.FindString(shown.String()); line != "" {
				t.Errorf("%s: %s in\n%s", file, line, shown.String())
			}
		}
	}
}

// explained returns what an inspector without keys says about an object.
func explained(t *testing.T, text string) string {
	t.Helper()
	parts, err := (&msl.Inspector{}).Inspect(context.Background(), strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	var shown bytes.Buffer
	msl.WriteText(&shown, parts)
	return shown.String()
}

// TestInspectForms explains data that is wrapped in special forms.
func TestInspectForms(t *testing.T) {
	jwk := `{"kty":"oct","alg":"A128KW","k":"c2VjcmV0IHNlY3JldCAhIQ"}`
	if shown := explained(t, jwk); !strings.Contains(shown, "k  (secret, not shown)") || strings.Contains(shown, "c2Vj") {
		t.Error(shown)
	}
	if shown := explained(t, strings.ReplaceAll(jwk, "kty", "type")); !strings.Contains(shown, "c2Vj") {
		t.Errorf("hides the members of something that is not a key: %s", shown)
	}
	jwe := `{"recipients":[{"header":"eyJhbGciOiJBMTI4S1cifQ","encrypted_key":"AAAA","integrity_value":"AAAA"}],"initialization_vector":"AAAA","ciphertext":"AAAAAAAA"}`
	for _, want := range []string{`header: {"alg":"A128KW"}`, "encrypted_key: 3 bytes", "ciphertext: 6 bytes"} {
		if shown := explained(t, jwe); !strings.Contains(shown, want) {
			t.Errorf("no %q in\n%s", want, shown)
		}
	}
}

// TestInspectHidden opens what MT_PROTECTED hides, with the issuer's keys and
// without.
func TestInspectHidden(t *testing.T) {
	var all struct {
		Cases []struct {
			Scheme   string
			Encoding struct{ Text string }
		}
	}
	if err := json.Unmarshal(readFile(t, "spec/entityauthdata.json"), &all); err != nil {
		t.Fatal(err)
	}
	for _, c := range all.Cases {
		if c.Scheme != "MT_PROTECTED" {
			continue
		}
		parts, err := inspector(t).Inspect(context.Background(), strings.NewReader(c.Encoding.Text))
		if err != nil {
			t.Fatal(err)
		}
		var shown bytes.Buffer
		msl.WriteText(&shown, parts)
		if !strings.Contains(shown.String(), "hidden under the master token") || !strings.Contains(shown.String(), "identity: ") {
			t.Errorf("not opened:\n%s", shown.String())
		}
		if closed := explained(t, c.Encoding.Text); strings.Contains(closed, "hidden under") || !strings.Contains(closed, "encrypted: version 1") {
			t.Errorf("without keys:\n%s", closed)
		}
		return
	}
	t.Error("no recorded MT_PROTECTED")
}
