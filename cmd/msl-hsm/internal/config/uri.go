package config

import (
	"fmt"
	"path/filepath"
	"strings"
)

// IsPKCS11 reports whether a key store is in a token: the scheme of a URI may have any case
// (RFC 3986 section 3.1).
func IsPKCS11(uri string) bool {
	scheme, _, found := strings.Cut(uri, ":")
	return found && strings.EqualFold(scheme, "pkcs11")
}

// Settled makes the path in a source absolute.
func Settled(dir, source string) string {
	for _, kind := range []string{"file:", "soft:"} {
		if file, ok := strings.CutPrefix(source, kind); ok {
			return kind + within(dir, file)
		}
	}
	if strings.HasPrefix(source, "tpm:") {
		return SettledTPM(dir, source)
	}
	return source
}

func within(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// SettledTPM makes the path of the state file in a tpm: URI absolute.
func SettledTPM(dir, uri string) string {
	parts := strings.FieldsFunc(uri, func(r rune) bool { return r == '?' || r == '&' })
	for _, part := range parts {
		path, ok := strings.CutPrefix(part, "state=")
		if ok && path != "" && path[0] != '/' && !strings.EqualFold(path[:min(3, len(path))], "%2F") {
			return strings.Replace(uri, part, "state="+escapedPath(dir)+"/"+path, 1)
		}
	}
	return uri
}

// escapedPath writes a path in the form of a tpm: URI.
func escapedPath(path string) string {
	var b strings.Builder
	for _, c := range []byte(path) {
		if c == '/' || c == '.' || c == '-' || c == '_' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
