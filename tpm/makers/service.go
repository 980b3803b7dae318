package makers

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/safetext"
)

const (
	// ServiceTime is how long a maker's service may take to answer.
	ServiceTime = 30 * time.Second
	// MaxAnswer is how many bytes of its answer are read, at most.
	MaxAnswer = 64 << 10
)

// A Service is where a manufacturer publishes endorsement key certificates that its TPMs
// do not contain. The zero value means no service.
type Service struct {
	maker string
	base  string // URL, to be followed by the name of a key
}

// places are the services of the manufacturers that have one.
func places() map[string]string {
	return map[string]string{
		"intel": "https://ekop.intel.com/ekcertservice/",
		"amd":   "https://ftpm.amd.com/pki/aia/",
	}
}

// ParseService reads intel or amd, for the service of that manufacturer, or intel:URL or
// amd:URL, for another place that answers in the same way. The URL must begin with https,
// unless it is on this machine (a loopback address).
func ParseService(text string) (s Service, err error) {
	maker, place, own := strings.Cut(text, ":")
	s = Service{maker: maker, base: places()[maker]}
	if s.base == "" {
		return Service{}, fmt.Errorf("%.80q: want intel, amd, intel:URL or amd:URL", text)
	}
	if !own {
		return s, nil
	}
	u, err := url.Parse(place)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return Service{}, fmt.Errorf("%.80q: want %s:URL, with a URL such as https://HOST/PATH", text, maker)
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return Service{}, fmt.Errorf("%.80q: want https; http is only for this machine", text)
	}
	s.base = strings.TrimSuffix(place, "/") + "/"
	return s, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// URL returns where the certificate of an endorsement key is: at a hash of the public key
// as the TPM reports it, in the manufacturer's form.
func (s Service) URL(ek crypto.PublicKey) (string, error) {
	key, kind, err := publicPart(ek)
	if err != nil {
		return "", err
	}
	if s.maker == "amd" {
		sum := sha256.Sum256(append([]byte{0, 0, kind, kind}, amdOrder(ek, key)...))
		return s.base + hex.EncodeToString(sum[:16]), nil
	}
	sum := sha256.Sum256(key)
	return s.base + url.QueryEscape(base64.URLEncoding.EncodeToString(sum[:])), nil
}

// publicPart returns modulus and exponent of an RSA key, or the coordinates of a point,
// in their full length, and the byte by which AMD distinguishes the two.
func publicPart(ek crypto.PublicKey) (key []byte, kind byte, err error) {
	switch k := ek.(type) {
	case *rsa.PublicKey:
		return append(k.N.Bytes(), exponent(k, 3)...), 0x22, nil
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil {
			return nil, 0, fmt.Errorf("makers: %w", err)
		}
		return point[1:], 0x44, nil // without the byte that marks an uncompressed point
	}
	return nil, 0, fmt.Errorf("makers: no maker certifies a key of the type %T", ek)
}

// amdOrder puts the exponent of an RSA key first, in four bytes.
func amdOrder(ek crypto.PublicKey, key []byte) []byte {
	k, ok := ek.(*rsa.PublicKey)
	if !ok {
		return key
	}
	return append(exponent(k, 4), k.N.Bytes()...)
}

func exponent(k *rsa.PublicKey, size int) []byte {
	all := []byte{byte(k.E >> 24), byte(k.E >> 16), byte(k.E >> 8), byte(k.E)}
	return all[len(all)-size:]
}

// Ask returns what the service answers for an endorsement key, at most [MaxAnswer] bytes,
// within [ServiceTime]. The caller must judge the content: no redirect or link in the
// answer is followed.
func (s Service) Ask(ctx context.Context, ek crypto.PublicKey) ([]byte, error) {
	place, err := s.URL(ek)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, ServiceTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, place, nil)
	if err != nil {
		return nil, fmt.Errorf("makers: %w", err)
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	answer, err := (&http.Client{CheckRedirect: stay}).Do(r)
	if err != nil {
		return nil, fmt.Errorf("makers: %w", safetext.Brief(err))
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("makers: %s answered HTTP %d", place, answer.StatusCode)
	}
	return readAnswer(place, answer.Body)
}

func readAnswer(place string, body io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(body, MaxAnswer+1))
	if err == nil && len(text) > MaxAnswer {
		err = errors.New("the answer is too long")
	}
	if err != nil {
		return nil, fmt.Errorf("makers: %s: %w", place, safetext.Brief(err))
	}
	return text, nil
}
