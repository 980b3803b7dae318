//go:build cgo && !nopkcs11 && !nometrics

package cli

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
)

// TestMetricsInTrouble has the service behind a server away, then the HSM hang, then fail: what
// the alerts compare tells of it, each failure once, and the reason is the true one.
func TestMetricsInTrouble(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	h := newHangable(t)
	t.Parallel()
	h.run("entity", "add", "camera", "--generate-psk", "camera.psk")
	text := readFile(t, filepath.Join(h.dir, "c.yaml"))
	write(t, h.dir, "c.yaml", strings.NewReplacer("pin: ", "call-timeout: 300ms, pin: ", "shutdown: 1s, listen", "upstream: \"http://127.0.0.1:1/\", shutdown: 1s, listen").Replace(text))
	_, url := h.serve()
	if got := h.status(); !strings.Contains(got, "addresses: 1, of which 1 were not tried yet") {
		t.Error(got)
	}
	send := []string{"send", url, "--psk-file", "camera.psk", "--server-key", "server.pem", "--key-exchange", "SYMMETRIC_WRAPPED", "--data", "hello"}
	h.fails("the service behind the server cannot be reached", send...)
	h.tells(`upstream_requests_total{status="none",target="http://127.0.0.1:1/"} 1`, `messages_total{fault="application",result="refused"} 1`,
		`messages_total{fault="keystore",result="refused"} 0`, `ready{check="keystore"} 1`)
	if got := h.status(); !strings.Contains(got, "no address could be used: http://127.0.0.1:1/: ") || !strings.Contains(got, "connection refused") {
		t.Error(got)
	}

	h.Inject(hsmtest.Fault{Function: "C_Sign", Hang: true, Times: 1})
	device := launch(t, h.dir, send...)
	h.hangs(device)
	await(t, "the call to be overdue", func() bool { return strings.Contains(h.status(), "C_Sign has not returned for") })
	h.tells(`ready{check="keystore"} 0`, `keystore_errors_total{error="unavailable",function=""} [1-9]\d*`, `messages_total{fault="keystore",result="unanswered"} 0`)
	h.fails("HTTP 503", send...)
	h.tells(`messages_total{fault="keystore",result="unanswered"} 1`, `messages_total{fault="application",result="refused"} 1`)

	h.Inject(hsmtest.Fault{Code: 0x30}) // CKR_DEVICE_ERROR
	await(t, "the device to be lost", func() bool { return strings.Contains(h.status(), "CKR_DEVICE_ERROR") })
	<-device.ended // the call has returned
	h.fails("HTTP 503", send...)
	h.tells(`ready{check="keystore"} 0`, `messages_total{fault="keystore",result="unanswered"} 3`)
}

// fails does a command that must fail, and say something.
func (h *hangable) fails(say string, args ...string) {
	h.t.Helper()
	c := exec.Command("msl-hsm", args...)
	c.Dir = h.dir
	if out, err := c.CombinedOutput(); err == nil || !strings.Contains(string(out), say) {
		h.t.Errorf("%v: %v, want %q: %s", args, err, say, out)
	}
}

// status is what admin status says.
func (h *hangable) status() string {
	c := exec.Command("msl-hsm", "admin", "status", "--config", "c.yaml")
	c.Dir = h.dir
	out, _ := c.CombinedOutput()
	return string(out)
}

// tells wants lines in the metrics.
func (h *hangable) tells(lines ...string) {
	h.t.Helper()
	text := h.run("admin", "metrics")
	for _, line := range lines {
		before, value, _ := strings.Cut(line, "} ")
		if !regexp.MustCompile("(?m)^" + regexp.QuoteMeta("msl_hsm_"+before+"} ") + value + "$").MatchString(text) {
			h.t.Errorf("no %s in the metrics: %v", line, regexp.MustCompile("(?m)^msl_hsm_"+before[:strings.Index(before, "{")]+".*[1-9]$").FindAllString(text, -1))
		}
	}
}
