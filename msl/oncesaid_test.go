package msl_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestSaidOnce reads something that is not a message, or cannot be read: the error names its code once,
// and whether it is a message at all.
func TestSaidOnce(t *testing.T) {
	names := regexp.MustCompile(`[0-9]+ [A-Z]+_[A-Z_]+`)
	for text, isMessage := range map[string]bool{
		"": false, "x": false, "{": false, "[]": false, "{}": false, `{"a":1}`: false, `{"entityauthdata":{}}`: false,
		`{"mastertoken":{}}`: false, `{"mastertoken":{"tokendata":"","signature":""}}`: false, `{"headerdata":`: false,
		`{"headerdata":1,"signature":""}`: true, `{"headerdata":"","signature":""}`: true, `{"errordata":1}`: true,
		`{"headerdata":"","mastertoken":{},"entityauthdata":{}}`: true, `{"mastertoken":{},"headerdata":""}`: true,
	} {
		_, err := newRecorded(t).server.Receive(t.Context(), strings.NewReader(text))
		if errors.Is(err, msl.ErrNotMessage) == isMessage {
			t.Errorf("%s: %v", text, err)
		}
		if err == nil || len(names.FindAllString(err.Error(), -1)) != 1 {
			t.Errorf("%s: %v", text, err)
		}
	}
}
