package config

import (
	"path"
	"strings"
	"unicode"
)

// isPath reports whether a text is the path of a URL as requests have it.
func isPath(text string) bool {
	clean := path.Clean(text)
	return strings.HasPrefix(text, "/") && (text == clean || text == clean+"/" && clean != "/") &&
		!strings.ContainsAny(text, "{} ?#%") && !strings.ContainsFunc(text, unicode.IsControl)
}
