package statuspage

import (
	"crypto/sha256"
	"encoding/json"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// site is the page of a server whose token is "0123456789abcdef".
func site(t *Tokens) *http.ServeMux {
	t.Add(sha256.Sum256([]byte("0123456789abcdef")))
	mux := http.NewServeMux()
	Add(mux, t.Show, func(*http.Request) Overview { return Overview{Identity: "secret"} })
	return mux
}

func get(h http.Handler, path, host, authorization string) *httptest.ResponseRecorder {
	r, w := httptest.NewRequest(http.MethodGet, path, nil), httptest.NewRecorder()
	r.Host = host
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	h.ServeHTTP(w, r)
	return w
}

// TestToken wants the overview to be shown to those who know the token, and to nobody else.
func TestToken(t *testing.T) {
	var tokens Tokens
	mux := site(&tokens)
	made := tokens.Make()
	if len(made) < 43 {
		t.Errorf("%d characters are not 256 bits", len(made))
	}
	for header, status := range map[string]int{
		"":                        http.StatusUnauthorized,
		"Bearer":                  http.StatusUnauthorized,
		"Bearer ":                 http.StatusUnauthorized,
		"Bearer 0123456789abcde":  http.StatusUnauthorized,
		"Bearer 0123456789ABCDEF": http.StatusUnauthorized,
		"Basic 0123456789abcdef":  http.StatusUnauthorized,
		"0123456789abcdef":        http.StatusUnauthorized,
		"Bearer 0123456789abcdef": http.StatusOK,
		"bearer 0123456789abcdef": http.StatusOK,
		"BEARER  " + made:         http.StatusOK,
		"bearer0123456789abcdef":  http.StatusUnauthorized,
		"Bearer " + made:          http.StatusOK,
		"Bearer " + made[:42]:     http.StatusUnauthorized,
	} {
		w := get(mux, "/overview", "127.0.0.1:9090", header)
		if w.Code != status || (status != http.StatusOK) != (w.Header().Get("WWW-Authenticate") != "") || (status != http.StatusOK) == strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%q: %d %q", header, w.Code, w.Body)
		}
	}
	for _, query := range []string{"?token=", "?access_token=", "?authorization=Bearer%20"} { // URLs are logged and remembered
		if w := get(mux, "/overview"+query+made, "127.0.0.1:9090", ""); w.Code != http.StatusUnauthorized {
			t.Errorf("%s: %d", query, w.Code)
		}
	}
}

// TestManyTokens has only the newest of those that were made count, and that of the
// configuration always.
func TestManyTokens(t *testing.T) {
	var tokens Tokens
	mux := site(&tokens)
	first := tokens.Make()
	newest := ""
	for range mostTokens {
		newest = tokens.Make()
	}
	for token, status := range map[string]int{first: http.StatusUnauthorized, newest: http.StatusOK, "0123456789abcdef": http.StatusOK} {
		if w := get(mux, "/overview", "localhost", "Bearer "+token); w.Code != status {
			t.Errorf("%s: %d, want %d", token, w.Code, status)
		}
	}
}

// TestRebinding asks as a page of another site whose name leads to a loopback address.
func TestRebinding(t *testing.T) {
	var tokens Tokens
	mux := site(&tokens)
	for host, ok := range map[string]bool{
		"127.0.0.1:9090": true, "127.0.0.1": true, "127.1.2.3:80": true, "[::1]:9090": true, "[::1]": true, "localhost:9999": true, "LOCALHOST": true,
		"evil.example:9090": false, "localhost.evil.example": false, "127.0.0.1.evil.example:9090": false, "10.0.0.1:9090": false,
		"": false, "evil.example@127.0.0.1": false, "0.0.0.0:9090": false, "[::]:9090": false, "::ffff:10.0.0.1": false,
	} {
		for _, path := range []string{"/", "/page.js", "/overview"} {
			w := get(mux, path, host, "Bearer 0123456789abcdef")
			if want := map[bool]int{true: http.StatusOK, false: http.StatusMisdirectedRequest}[ok]; w.Code != want || !ok && strings.Contains(w.Body.String(), "secret") {
				t.Errorf("%q %s: %d, want %d", host, path, w.Code, want)
			}
		}
	}
}

// TestHeaders wants the page to be safe from other sites, whatever is asked for.
func TestHeaders(t *testing.T) {
	var tokens Tokens
	mux := site(&tokens)
	for path, kind := range map[string]string{"/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript", "/chart.js": "text/javascript", "/icon.svg": "image/svg+xml", "/overview": "text/plain"} {
		h := get(mux, path, "localhost", "").Header()
		csp := h.Get("Content-Security-Policy")
		if !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: policy %q", path, csp)
		}
		for name, want := range map[string]string{"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"} {
			if h.Get(name) != want {
				t.Errorf("%s: %s is %q, want %q", path, name, h.Get(name), want)
			}
		}
		if allowed := h.Get("Access-Control-Allow-Origin"); allowed != "" {
			t.Errorf("%s: other sites may read it: %q", path, allowed)
		}
		if !strings.HasPrefix(h.Get("Content-Type"), kind) {
			t.Errorf("%s is %q", path, h.Get("Content-Type"))
		}
	}
}

// TestReadOnly wants nothing that changes something, and no other file.
func TestReadOnly(t *testing.T) {
	var tokens Tokens
	mux := site(&tokens)
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
		for _, path := range []string{"/", "/overview"} {
			r, w := httptest.NewRequest(method, path, nil), httptest.NewRecorder()
			r.Host = "localhost"
			r.Header.Set("Authorization", "Bearer 0123456789abcdef")
			if mux.ServeHTTP(w, r); w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, w.Code)
			}
		}
	}
	for _, path := range []string{"/assets/page.js", "/page.go", "/../page.go", "/x"} {
		if w := get(mux, path, "localhost", "Bearer 0123456789abcdef"); w.Code == http.StatusOK {
			t.Errorf("%s is shown", path)
		}
	}
}

// TestAssets wants no part from elsewhere, no code or style in the text, which the policy
// would keep from working, and no text that becomes HTML.
func TestAssets(t *testing.T) {
	seen := 0
	err := fs.WalkDir(assets, "assets", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		seen++
		raw, err := fs.ReadFile(assets, path)
		text := strings.ReplaceAll(string(raw), "http://www.w3.org/2000/svg", "")
		for _, wrong := range []string{`https?://`, `\son[a-z]+=`, `<style`, `\sstyle=`, `<script>`, `innerHTML`, `outerHTML`, `insertAdjacent`, `document\.write`, `\beval\b`, `\.style\.`} {
			if found := regexp.MustCompile(wrong).FindString(text); found != "" {
				t.Errorf("%s has %q", path, found)
			}
		}
		return err
	})
	if err != nil || seen != 5 {
		t.Errorf("%d files: %v", seen, err)
	}
}

// TestOverviewJSON wants lists where the script expects them, and none to be null.
func TestOverviewJSON(t *testing.T) {
	var h History
	var o Overview
	h.Fill(&o)
	text, err := json.Marshal(o)
	if err != nil || !strings.Contains(string(text), `"past":[]`) || !strings.Contains(string(text), `"failures":[]`) {
		t.Errorf("%s %v", text, err)
	}
}
