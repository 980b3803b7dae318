package clientside

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// TestExplainNobody explains the refusal of a server whose scheme proves no identity.
func TestExplainNobody(t *testing.T) {
	err := Explain(&msl.PeerError{Response: msl.Fail, Code: -1, InternalCode: -1}, config.Default())
	if !strings.HasPrefix(err.Error(), "the server refused the message: ") {
		t.Error(err)
	}
}

// TestUnreadCertificate names the clock if a server's certificate is refused because of its dates.
func TestUnreadCertificate(t *testing.T) {
	for code, want := range map[msl.Code]bool{msl.ErrX509CertExpired: true, msl.ErrX509CertNotYetValid: true, msl.ErrX509CertVerificationFailed: false} {
		err := Unread(msl.Failure(code, "answer", errors.New("why")))
		if strings.Contains(err.Error(), "check that clock") != want || exit.Code(err) != exit.Untrusted {
			t.Errorf("exit code %d: %v", exit.Code(err), err)
		}
	}
}

// TestExplainCertificate says what helps against a certificate that is not valid now.
func TestExplainCertificate(t *testing.T) {
	for code, want := range map[msl.Code]string{
		msl.ErrX509CertExpired:            "msl-hsm tpm renew",
		msl.ErrX509CertNotYetValid:        "compare the clock",
		msl.ErrX509CertVerificationFailed: "check the keys",
	} {
		err := Explain(&msl.PeerError{Response: msl.EntityDataReauth, Code: code}, config.Default())
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestUnreadProxy has a proxy in the environment that is not there, or that does not have the TLS in its
// URL: the error is not about the server.
func TestUnreadProxy(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	for _, proxy := range []string{"http://127.0.0.1:1", strings.Replace(plain.URL, "http:", "https:", 1)} {
		at, err := url.Parse(proxy)
		if err != nil {
			t.Fatal(err)
		}
		web := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(at)}}
		_, err = (&mslhttp.Transport{URL: "http://server.invalid/", Client: web}).RoundTrip(t.Context(), func(io.Writer) error { return nil })
		if got := Unread(err); !strings.HasPrefix(got.Error(), "the proxy that HTTP_PROXY names in the environment cannot be used: ") {
			t.Errorf("%s: %v", proxy, got)
		}
	}
}
