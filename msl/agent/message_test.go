package agent

import (
	"fmt"
	"net/http"
	"net/http/httptest"
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
