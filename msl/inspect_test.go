package msl_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// A decodedMessage is what an independent decoder found in a recorded message.
type decodedMessage struct {
	Payloads []struct{ Data *string }
	Error    string
}

// inspector has the recorded keys of the server.
func inspector(t *testing.T) *msl.Inspector {
	r := newRecorded(t)
	own := directory{"server1": {Identity: "server1", Scheme: "RSA", KeyID: "rsakeyid1", PublicKey: publicKey(t, "server1_rsa2048")}}
	return &msl.Inspector{
		Issuer: r.server.Issuer, ServiceTokens: r.server.ServiceTokens,
		Senders: append(r.server.Peers, &entityauth.RSA{Directory: own}),
	}
}

// unknownKeys are messages of entities whose scheme is not implemented, or whose
// keys are missing: only their outside is shown.
var unknownKeys = regexp.MustCompile(`PSK_PROFILE|ECC|NONE_SUFFIXED|MT_PROTECTED|PROVISIONED|client6|unknown`)

func TestInspectConversations(t *testing.T) {
	skipWithRace(t)
	files, err := filepath.Glob(vectors + "/conversations/*.re[qs]*.[0-9]")
	if err != nil || len(files) < 150 {
		t.Fatalf("%d recorded messages, %v", len(files), err)
	}
	in := inspector(t)
	decrypted := 0
	for _, path := range files {
		name := filepath.Base(path)
		raw := readFile(t, "conversations/"+name)
		parts, err := in.Inspect(context.Background(), bytes.NewReader(raw))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var text bytes.Buffer
		if err := msl.WriteText(&text, parts); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(text.String(), "WRONG") || strings.Contains(text.String(), "unreadable") || strings.Contains(text.String(), "does not") {
			t.Errorf("%s: not all of it was opened:\n%s", name, text.String())
		}
		for _, secret := range []string{"user1pwd", "wrongpwd"} {
			if strings.Contains(text.String(), secret) {
				t.Errorf("%s: shows a password", name)
			}
		}
		want := recordedPayloads(t, name)
		got := payloadsOf(parts)
		if len(got) == 0 && (unknownKeys.MatchString(text.String()) || len(want) == 0) {
			continue
		}
		if strings.Join(got, "") != strings.Join(want, "") {
			t.Errorf("%s: payload %.60q, want %.60q", name, got, want)
		}
		decrypted++
	}
	if decrypted < 100 {
		t.Errorf("decrypted %d messages only", decrypted)
	}
}

func recordedPayloads(t *testing.T, name string) (data []string) {
	t.Helper()
	label, side, number := "", "", 0
	parts := strings.Split(name, ".")
	label, side = parts[0], parts[1]
	fmt.Sscan(parts[2], &number)
	var exchanges []struct{ Req, Resp decodedMessage }
	if err := json.Unmarshal(readFile(t, "conversations/"+label+".decoded.json"), &exchanges); err != nil {
		t.Fatal(err)
	}
	message := exchanges[number-1].Req
	if side == "resp" {
		message = exchanges[number-1].Resp
	}
	for _, p := range message.Payloads {
		if p.Data != nil {
			data = append(data, *p.Data)
		}
	}
	return data
}

// payloadsOf finds the data of the payload chunks that were opened.
func payloadsOf(parts []msl.Part) (data []string) {
	for _, p := range parts {
		if p.Name != "payload chunk" {
			continue
		}
		for _, inner := range p.Parts[0].Parts {
			if text, ok := inner.Value.(string); ok && inner.Name == "data" {
				data = append(data, text)
			}
		}
	}
	return data
}

func TestInspectWithoutKeys(t *testing.T) {
	raw := readFile(t, "conversations/PSK-SYMMETRIC_WRAPPED_PSK.resp.1")
	parts, err := (&msl.Inspector{}).Inspect(context.Background(), bytes.NewReader(append(raw, '\n')))
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	msl.WriteText(&text, parts)
	for _, want := range []string{"identity: server1", "not verified: no keys for it", "(master token)", "(user ID token)", "encryptionkey: 24 bytes  (wrapped)"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
}

func TestInspectSecrets(t *testing.T) {
	raw := readFile(t, "conversations/err-bad-password.req.1")
	in := inspector(t)
	for _, secrets := range []bool{false, true} {
		in.Secrets = secrets
		parts, err := in.Inspect(context.Background(), bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		var text bytes.Buffer
		msl.WriteText(&text, parts)
		if strings.Contains(text.String(), "wrongpwd") != secrets {
			t.Errorf("secrets %v:\n%s", secrets, text.String())
		}
	}
}

func TestInspectBadInput(t *testing.T) {
	for name, input := range map[string]string{
		"empty": "", "white space": " \n", "no JSON": "hello", "cut off": `{"headerdata":"`, "array": "[1]", "second object bad": `{"a":1}{"a":`,
	} {
		if _, err := (&msl.Inspector{}).Inspect(context.Background(), strings.NewReader(input)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for name, input := range map[string]string{
		"any object": `{"a":{"b":[1,true,"x"]}}`, "empty token": `{"tokendata":"","signature":""}`, "odd header": `{"headerdata":5}`,
		"control characters": `{"a":"\u001b[2J"}`,
	} {
		parts, err := (&msl.Inspector{}).Inspect(context.Background(), strings.NewReader(input))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var text bytes.Buffer
		msl.WriteText(&text, parts)
		if strings.ContainsRune(text.String(), 0x1b) {
			t.Errorf("%s: escape character goes to the terminal", name)
		}
	}
}
