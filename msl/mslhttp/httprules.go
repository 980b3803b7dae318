package mslhttp

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/msl-hsm/msl-hsm/msl/httpform"
)

// HTTPRules says what an [HTTPGateway] forwards. Everything else is refused or left out.
type HTTPRules struct {
	// Paths are the paths that may be requested. A path that ends with a slash stands for
	// everything below it, any other for itself and everything below it. No paths means
	// none. A path that the service could read as another one is refused, whatever Paths
	// says: one with dot segments, empty segments, a backslash or a control character, or
	// with an encoded dot, slash or percent sign.
	Paths []string

	// Methods are the methods that may be used. None means [DefaultHTTPMethods].
	Methods []string

	// RequestHeaders and ResponseHeaders are names of header fields that are forwarded in
	// addition to [DefaultRequestHeaders] and [DefaultResponseHeaders].
	RequestHeaders, ResponseHeaders []string
}

// DefaultHTTPMethods returns the methods that are forwarded by default.
func DefaultHTTPMethods() []string {
	return []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
}

// DefaultRequestHeaders returns the fields of a request that are always forwarded.
func DefaultRequestHeaders() []string {
	return []string{
		"Accept", "Accept-Charset", "Accept-Encoding", "Accept-Language", "Cache-Control", "Content-Disposition", "Content-Encoding",
		"Content-Language", "Content-Type", "Idempotency-Key", "If-Match", "If-Modified-Since", "If-None-Match", "If-Range",
		"If-Unmodified-Since", "Last-Event-Id", "Pragma", "Prefer", "Range", "User-Agent",
	}
}

// DefaultResponseHeaders returns the fields of a response that are always forwarded.
func DefaultResponseHeaders() []string {
	return []string{
		"Accept-Patch", "Accept-Post", "Accept-Ranges", "Age", "Allow", "Cache-Control", "Content-Disposition", "Content-Encoding",
		"Content-Language", "Content-Location", "Content-Range", "Content-Type", "Date", "Deprecation", "Etag", "Expires", "Last-Modified",
		"Link", "Location", "Pragma", "Preference-Applied", "Retry-After", "Sunset", "Vary", "Www-Authenticate", "X-Content-Type-Options",
	}
}

func (r *HTTPRules) request(h http.Header) http.Header {
	return only(h, DefaultRequestHeaders(), r.RequestHeaders)
}

func (r *HTTPRules) response(h http.Header) http.Header {
	return only(h, DefaultResponseHeaders(), r.ResponseHeaders)
}

// only returns the fields of those names that may be forwarded.
func only(h http.Header, lists ...[]string) http.Header {
	h = httpform.EndToEnd(h)
	to := make(http.Header, len(h))
	for _, list := range lists {
		for _, name := range list {
			if name = http.CanonicalHeaderKey(name); h[name] != nil {
				to[name] = h[name]
			}
		}
	}
	return to
}

// check returns why a request is refused, or nil.
func (r *HTTPRules) check(request *http.Request) *httpRefusal {
	methods := r.Methods
	if len(methods) == 0 {
		methods = DefaultHTTPMethods()
	}
	path, _, _ := strings.Cut(request.RequestURI, "?")
	plain, err := plainPath(path)
	switch {
	case err != nil:
		return &httpRefusal{http.StatusBadRequest, "the path could be taken for another one: " + err.Error(), ""}
	case !slices.ContainsFunc(r.Paths, func(allowed string) bool { return within(allowed, plain) }):
		return &httpRefusal{http.StatusNotFound, "devices may not ask for this path", ""}
	case !slices.Contains(methods, request.Method):
		return &httpRefusal{http.StatusMethodNotAllowed, "devices may not use this method", strings.Join(methods, ", ")}
	}
	return nil
}

// within reports whether a path is allowed by an entry of a list.
func within(allowed, path string) bool {
	if strings.HasSuffix(allowed, "/") {
		return strings.HasPrefix(path, allowed)
	}
	return path == allowed || strings.HasPrefix(path, allowed+"/")
}

// CheckHTTPPath returns why an entry of [HTTPRules].Paths could not allow any path, or
// nil.
func CheckHTTPPath(entry string) error {
	if !strings.HasPrefix(entry, "/") || strings.ContainsAny(entry, "?#%") {
		return fmt.Errorf("%q: want a path that begins with a slash, without escapes, such as /api/", entry)
	}
	_, err := plainPath(strings.ReplaceAll(url.PathEscape(entry), "%2F", "/"))
	if err != nil {
		return fmt.Errorf("%q: no such path is ever passed on: %w", entry, err)
	}
	return nil
}

// plainPath decodes a path. It refuses any that a service could read as another path by
// cleaning it, decoding it twice, treating a backslash as a slash, or ending it at a NUL.
func plainPath(escaped string) (string, error) {
	plain, err := url.PathUnescape(escaped)
	switch {
	case err != nil || !strings.HasPrefix(escaped, "/"):
		return "", fmt.Errorf("it is not a path")
	case !utf8.ValidString(plain):
		return "", fmt.Errorf("it is not in UTF-8")
	case strings.ContainsFunc(plain, func(c rune) bool { return c < ' ' || c == 0x7f || c == '\\' }):
		return "", fmt.Errorf("it has a backslash or a control character")
	case strings.Contains(plain, "//"):
		return "", fmt.Errorf("it has an empty segment")
	}
	for _, code := range []string{"%2e", "%2f", "%5c", "%25"} {
		if strings.Contains(strings.ToLower(escaped), code) {
			return "", fmt.Errorf("it has an encoded dot, slash, backslash or percent sign")
		}
	}
	return plain, checkDots(plain)
}

// checkDots refuses a path with a segment that leads out of it, even if only for servers
// that cut off the parameters of a segment, take an encoded question mark for the beginning
// of a query, or drop spaces.
func checkDots(plain string) error {
	for segment := range strings.SplitSeq(plain, "/") {
		if end := strings.IndexAny(segment, ";?#"); end >= 0 {
			segment = segment[:end]
		}
		if name := strings.TrimSpace(segment); name == "." || name == ".." {
			return fmt.Errorf("it has a segment of dots")
		}
	}
	return nil
}

// CheckPassedHeader returns why a header field of that name can never be forwarded,
// whatever [HTTPRules] say, or nil.
func CheckPassedHeader(name string) error {
	switch plain := folded(name); {
	case strings.HasPrefix(plain, "msl-"), isReserved(plain):
		return fmt.Errorf("%s says who sent a message or from where, and is set only by the server", name)
	case isOfConnection(plain), !httpform.Passes(name):
		return fmt.Errorf("%s belongs to one connection", name)
	case plain != strings.ToLower(name), strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, c) }), name == "":
		return fmt.Errorf("%q is not the name of a header field that services agree on", name)
	}
	return nil
}
