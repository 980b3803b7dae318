package statuspage

import (
	"embed"
	"encoding/json"
	"io/fs"
	"net/http"

	"github.com/msl-hsm/msl-hsm/internal/weborigin"
)

//go:embed assets
var assets embed.FS

// Add adds the page to a server on a loopback address, at "/". The result of overview is
// sent to those whom shown admits.
func Add(to *http.ServeMux, shown func(http.Handler) http.Handler, overview func(*http.Request) Overview) {
	files, _ := fs.Sub(assets, "assets") // its name is valid
	page := local(protected(http.FileServerFS(files)))
	to.Handle("GET /{$}", page)
	for _, name := range []string{"page.css", "page.js", "chart.js", "icon.svg"} {
		to.Handle("GET /"+name, page)
	}
	to.Handle("GET /overview", local(protected(shown(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(overview(r))
	})))))
}

// policy permits only the files of this page, and no inline code (CSP level 3).
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// protected keeps other sites from framing, reading or altering what is shown.
func protected(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range map[string]string{
			"Content-Security-Policy":      policy,
			"X-Frame-Options":              "DENY",
			"X-Content-Type-Options":       "nosniff",
			"Referrer-Policy":              "no-referrer",
			"Cross-Origin-Opener-Policy":   "same-origin",
			"Cross-Origin-Resource-Policy": "same-origin",
			"Permissions-Policy":           "camera=(), geolocation=(), microphone=()",
			"Cache-Control":                "no-store",
		} {
			w.Header().Set(name, value)
		}
		h.ServeHTTP(w, r)
	})
}

// local refuses requests that name a host other than this machine: a site whose name was
// made to point to a loopback address (DNS rebinding) sends its own name.
func local(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !weborigin.IsLocal(r.Host) {
			http.Error(w, "this page is available only at localhost or a loopback address: open it there, or configure the proxy to send one of these as Host", http.StatusMisdirectedRequest)
			return
		}
		h.ServeHTTP(w, r)
	})
}
