package mslhttp

import (
	"net/http"
	"slices"
	"testing"
)

// TestHTTPRules has paths that must not slip past the list.
func TestHTTPRules(t *testing.T) {
	rules := HTTPRules{Paths: []string{"/api", "/files/"}, Methods: []string{"GET"}}
	for target, want := range map[string]int{
		"/api": 0, "/api/": 0, "/api/x": 0, "/api?x=/../": 0, "/api/a%20b": 0, "/api/%C3%A9": 0, "/files/": 0, "/files/x.txt": 0, "/api/..x": 0, "/api/;x": 0,
		"/": 404, "/apix": 404, "/files": 404, "/API": 404, "/other": 404, "/%61pi": 0,
		"/api/../x": 400, "/api/..": 400, "/api/./x": 400, "/api/%2e%2e/x": 400, "/api/%2E./x": 400, "/api/.%2e/x": 400,
		"/api%2f..%2fx": 400, "/api/%2Fx": 400, "/api/..%5cx": 400, "/api/..\\x": 400, "//api": 400, "/api//x": 400, "/api/%00": 400, "/api/%0a": 400,
		"/api/%7f": 400, "/api/..;/x": 400, "/api/..%3fx": 400, "/api/..%23/x": 400, "/api/..%20/x": 400, "/api/%20../x": 400, "/api/.%3bx": 400, "/api/a%3f/..x": 0, "/api/..;a=b/x": 400, "/api/%252e%252e/x": 400, "/api/%25": 400, "/api/%c0%ae%c0%ae/x": 400, "/api/%ff": 400,
		"/api/%zz": 400, "api": 400, "": 400, "*": 400, "http://x/api": 400,
	} {
		got := 0
		if r := rules.check(&http.Request{Method: "GET", RequestURI: target}); r != nil {
			got = r.status
		}
		if got != want {
			t.Errorf("%q: %d, want %d", target, got, want)
		}
	}
	if r := rules.check(&http.Request{Method: "POST", RequestURI: "/api"}); r == nil || r.status != 405 || r.allow != "GET" {
		t.Errorf("POST: %+v", r)
	}
	if r := (&HTTPRules{}).check(&http.Request{Method: "GET", RequestURI: "/"}); r == nil || r.status != 404 {
		t.Errorf("no paths: %+v", r)
	}
}

func TestCheckHTTPRules(t *testing.T) {
	for entry, well := range map[string]bool{"/": true, "/api": true, "/a/b/": true, "": false, "api": false, "api/": false, "a\\b": false, "/a/../b": false, "//": false, "/a?b": false, "/%61": false, "/a#": false} {
		if err := CheckHTTPPath(entry); (err == nil) != well {
			t.Errorf("%q: %v", entry, err)
		}
	}
	for name, well := range map[string]bool{
		"Authorization": true, "cookie": true, "X-Acme": true, "": false, "Connection": false, "TE": false, "Host": false, "Content-Length": false,
		"Msl-Entity": false, "msl_user": false, "X_Acme": false, "X-Forwarded-For": false, "a b": false, "a:": false, "Upgrade": false, "Http2-Settings": false,
		"Proxy-X": false, "Expect": false, "a\x7f": false, "a\x1f": false, "é": false, "a,": false, "a@": false, "a~": false, "Forwarded": false, "X-Real-Ip": false,
	} {
		if err := CheckPassedHeader(name); (err == nil) != well {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range slices.Concat(DefaultRequestHeaders(), DefaultResponseHeaders()) {
		if err := CheckPassedHeader(name); err != nil || name != http.CanonicalHeaderKey(name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
