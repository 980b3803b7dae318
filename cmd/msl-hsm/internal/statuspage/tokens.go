package statuspage

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"strings"
	"sync"
)

// Tokens are what callers must know, stored as hashes. The zero value has none. It is
// safe for concurrent use.
type Tokens struct {
	mu    sync.Mutex
	fixed [][sha256.Size]byte // from a configuration
	made  [][sha256.Size]byte // newest last
}

// mostTokens is how many generated tokens are valid: each command makes one.
const mostTokens = 32

// Add admits those who know the token with that hash.
func (t *Tokens) Add(hash [sha256.Size]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fixed = append(t.fixed, hash)
}

// Make returns a new token of 256 random bits. The newest 32 generated tokens are valid,
// until the process ends.
func (t *Tokens) Make() string {
	secret := make([]byte, 32)
	rand.Read(secret)
	token := base64.RawURLEncoding.EncodeToString(secret)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.made = append(t.made, sha256.Sum256([]byte(token)))
	t.made = t.made[max(0, len(t.made)-mostTokens):]
	return token
}

// know reports whether a token is one of them, in constant time.
func (t *Tokens) know(token string) bool {
	sum, found := sha256.Sum256([]byte(token)), 0
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, list := range [][][sha256.Size]byte{t.fixed, t.made} {
		for i := range list {
			found |= subtle.ConstantTimeCompare(sum[:], list[i][:])
		}
	}
	return found == 1
}

// Show shows a page to those who know a token (RFC 6750). The name of the scheme may be
// written in any case (RFC 9110, section 11.1), followed by spaces (section 11.4).
func (t *Tokens) Show(page http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "Bearer") || !t.know(strings.TrimLeft(given, " ")) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "this needs the token of server.admin, sent as Authorization: Bearer TOKEN", http.StatusUnauthorized)
			return
		}
		page.ServeHTTP(w, r)
	})
}
