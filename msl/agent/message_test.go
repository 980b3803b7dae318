package agent

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestNoCompression reads what a program says about one message.
func TestNoCompression(t *testing.T) {
	for value, want := range map[string]bool{"": false, "true": true, "false": false} {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		if value != "" {
			r.Header.Set("Msl-No-Compression", value)
		}
		if m, err := (&Handler{}).message(r); err != nil || m.request.Uncompressed != want {
			t.Errorf("%q: %v, %v", value, m.request.Uncompressed, err)
		}
	}
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	r.Header.Set("Msl-No-Compression", "1")
	if _, err := (&Handler{}).message(r); err == nil {
		t.Error("1 is neither true nor false")
	}
}

// TestAcceptLanguage tells the server what the user of a program reads.
func TestAcceptLanguage(t *testing.T) {
	for header, want := range map[string]string{
		"": "", "*": "", "de": "de", "de-AT, en;q=0.5": "de-AT en", "en;q=0.5, de": "de en", "de;q=0": "", "de, *;q=0.1": "de",
		"de;q=x": "", "\xff": "", "de_AT": "de-AT", strings.Repeat("de-AT,", 40) + "en": strings.TrimSpace(strings.Repeat("de-AT ", maxLanguages)),
		strings.Repeat("-", 2000): "",
	} {
		h := http.Header{"Accept-Language": {header}}
		if got := strings.Join(languages(h), " "); got != want {
			t.Errorf("%.40q: %q, want %q", header, got, want)
		}
	}
}

// TestRefusalOfApplication has the body of an error that an application chose.
func TestRefusalOfApplication(t *testing.T) {
	for want, e := range map[string]msl.PeerError{
		`0  250017 Nein.`:                 {Response: msl.Fail, Code: 150017, InternalCode: 250017, User: "Nein."},
		`0  7 `:                           {Response: msl.Fail, Code: -1, InternalCode: 7},
		`0  0 `:                           {Response: msl.Fail, Code: -1, InternalCode: -1},
		`5007 EMAILPASSWORD_INCORRECT 0 `: {Response: msl.UserDataReauth, Code: msl.ErrEmailPasswordIncorrect, InternalCode: 105007},
	} {
		r := (&Handler{}).refusal(fmt.Errorf("x: %w", &e))
		if got := fmt.Sprintf("%d %s %d %s", r.Code, r.Name, r.Internal, r.Message); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
