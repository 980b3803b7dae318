package mslhttp

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func target(t *testing.T, text string) Target {
	t.Helper()
	parsed, err := ParseTarget(text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestParseTarget(t *testing.T) {
	for text, want := range map[string]string{
		"http://127.0.0.1:3000/api?x=1":        "http://127.0.0.1:3000/api?x=1 ",
		"https://user:secret@host/":            "https://user:xxxxx@host/ ",
		"unix:/run/app.sock":                   "unix:/run/app.sock /run/app.sock",
		"unix:///run/app.sock":                 "unix:/run/app.sock /run/app.sock",
		"unix:/run/app.sock:/api/v1?x":         "unix:/run/app.sock:/api/v1?x /run/app.sock",
		"unix:app.sock":                        "unix:app.sock app.sock",
		"":                                     "error",
		"ftp://host/":                          "error",
		"http:///path":                         "error",
		"http://:80/":                          "error",
		"http://host/#part":                    "error",
		"127.0.0.1:3000":                       "error",
		"unix:":                                "error",
		"unix::/x":                             "error",
		"unix:/run/app.sock:api":               "error",
		"http://user:secret@host:port/":        "error",
		"http://user:secret@ho st/":            "error",
		"http://user:secret@secret@host:port/": "error",
		"http//user:secret@host":               "error",
		"http://host:0/":                       "error",
		"http://host:65536/":                   "error",
		"http://host:/":                        "http://host:/ ",
		"://user:secret@host":                  "error",
	} {
		parsed, err := ParseTarget(text)
		got := parsed.String() + " " + parsed.Socket
		if err != nil {
			got = "error"
			if parsed.URL != nil {
				t.Errorf("%q: %v, and an error", text, parsed)
			}
		}
		if got != want {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
		if strings.Contains(fmt.Sprint(err, parsed), "secret") {
			t.Errorf("%q tells the password: %v %v", text, parsed, err)
		}
	}
}

func TestTargetAddress(t *testing.T) {
	for _, c := range []struct{ base, request, want string }{
		{"http://h", "", "http://h"},
		{"http://h/api/?a=1", "", "http://h/api/?a=1"},
		{"http://h", "/x", "http://h/x"},
		{"http://h/api/", "/x/", "http://h/api/x/"},
		{"http://h/api?a=1", "/x%2Fy?b=2", "http://h/api/x%2Fy?a=1&b=2"},
		{"http://h/a%2Fb", "/x", "http://h/a%2Fb/x"},
		{"http://h/api", "?b=2", "http://h/api?b=2"},
		{"http://h/api", "/", "http://h/api/"},
	} {
		r, err := http.NewRequest("GET", c.request, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := target(t, c.base).address(r.URL).String(); got != c.want {
			t.Errorf("%s and %s: %s, want %s", c.base, c.request, got, c.want)
		}
	}
}

// TestHealthURL has health checks of all forms: a query stays one, and what is escaped is
// not escaped again.
func TestHealthURL(t *testing.T) {
	for _, c := range []struct{ base, path, want string }{
		{"http://h/api/", "/healthz", "http://h/api/healthz"},
		{"http://h/api", "/health?wait=1s&x=%20", "http://h/api/health?wait=1s&x=%20"},
		{"http://h/api?key=1", "/health?x", "http://h/api/health?key=1&x"},
		{"http://h", "/a%20b%2Fc", "http://h/a%20b%2Fc"},
		{"http://h", "/a b", "refused"},
		{"http://h", "/a#b", "refused"},
		{"http://h", "/%zz", "refused"},
		{"http://h", "healthz", "refused"},
		{"http://h", "http://other/", "refused"},
		{"http://h", "//other/x", "http://h//other/x"},
	} {
		got := "refused"
		if err := (&Upstream{Targets: []Target{target(t, c.base)}, Check: HealthCheck{Path: c.path}}).open(); err == nil {
			got = target(t, c.base).healthURL(c.path)
		}
		if got != c.want {
			t.Errorf("%s and %s: %s, want %s", c.base, c.path, got, c.want)
		}
	}
}

// FuzzParseTarget has no text that makes a target without a host, or one that changes
// when it is written and read, or an error that tells a password.
func FuzzParseTarget(f *testing.F) {
	for _, text := range []string{"http://h/p?q", "https://u:secret@h:1/", "unix:/s", "unix:///s:/p?q", "unix:@s", "unix:////", "unix:s:", "http://[::1]:80", "http://u:secret@h:port"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := ParseTarget(text)
		if err != nil {
			if before, _, ok := strings.Cut(text, "@"); ok && strings.Contains(before, "secret") && strings.Contains(err.Error(), "secret") {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if parsed.check() != nil {
			t.Errorf("%q: no host", text)
		}
		again, err := ParseTarget(parsed.String())
		if err != nil || again.String() != parsed.String() || again.Socket != parsed.Socket {
			t.Errorf("%q: %q, then %q, %v", text, parsed, again, err)
		}
	})
}
