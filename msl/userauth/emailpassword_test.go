package userauth

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// TestNotPrinted tries the verbs of package fmt, and JSON, as a log does.
func TestNotPrinted(t *testing.T) {
	const password = "correct horse"
	d := EmailPasswordData("ada@example.com", []byte(password))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		for _, v := range []any{d, *d} {
			if text := fmt.Sprintf(verb, v); text != "user authentication data of EMAIL_PASSWORD" {
				t.Errorf("%s prints %s", verb, text)
			}
		}
	}
	text, err := json.Marshal(d)
	if err != nil || strings.Contains(string(text), password) || strings.Contains(string(text), base64.StdEncoding.EncodeToString(d.AuthData)) {
		t.Errorf("%s, %v", text, err)
	}
}
