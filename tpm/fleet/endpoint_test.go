package fleet

import (
	"bytes"
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

func TestThrottled(t *testing.T) {
	h := newThrottle(messagesPerSecond).before((&EndpointConfig{}).source, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	codes := map[int]int{}
	for range 5 * messagesPerSecond {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/enroll", nil))
		codes[w.Code]++
	}
	if codes[http.StatusOK] < 2*messagesPerSecond || codes[http.StatusServiceUnavailable] < messagesPerSecond {
		t.Errorf("%v", codes)
	}
}

func TestThrottledCounts(t *testing.T) {
	limits := &mslhttp.Connections{}
	s := httptest.NewUnstartedServer(newThrottle(1e-6).before((&EndpointConfig{}).source, http.NotFoundHandler()))
	s.Listener, s.Config.ConnContext = limits.Listen(s.Listener), limits.Context
	s.Start()
	defer s.Close()
	for range 3 { // one is allowed
		answer, err := http.Post(s.URL, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
	}
	if n := limits.TurnedAway()[mslhttp.TooManyRequests]; n != 2 {
		t.Errorf("%d are counted, of 2", n)
	}
}

// The memory that is stated for devices that enroll is all that they may have, whatever
// the limits of other messages are.
func TestEndpointLimits(t *testing.T) {
	for _, l := range []msl.Limits{{}, {Header: 64 << 20, Chunk: 64 << 20, Held: 64 << 20, Unproven: 1 << 30, Proven: 1 << 30}} {
		if own := endpointLimits(l, maxMessage).Effective(); own.Unproven != EndpointMemory || own.Proven != EndpointMemory {
			t.Errorf("%d and %d bytes, of %d", own.Unproven, own.Proven, EndpointMemory)
		}
	}
}

// TestEndpointLogs sends data that is not an enrollment: the sender gets an answer, and the log
// of the server has the reason.
func TestEndpointLogs(t *testing.T) {
	s := newSite(t)
	var log bytes.Buffer
	e, err := NewEndpoint(s.Authority, EndpointConfig{
		Name: "server", Local: s.own, Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	url := serve(t, httptest.NewServer(e), e)
	client := NewClient(s.peers, &mslhttp.Transport{URL: url})
	t.Cleanup(func() { client.Close() })
	answer, err := Exchange(client, "server")(t.Context(), []byte("x"))
	if err != nil || len(answer) == 0 {
		t.Errorf("%s, %v", answer, err)
	}
	if !strings.Contains(log.String(), "device not enrolled") {
		t.Errorf("log: %s", &log)
	}
}

// TestEndpointSizes takes the largest message where event logs are asked for, and else the
// largest without.
func TestEndpointSizes(t *testing.T) {
	s := newSite(t)
	for _, tt := range []struct {
		logs, taken bool
		size        int
	}{{false, true, proof.MaxPlain}, {false, false, proof.MaxMessage}, {true, true, proof.MaxMessage}} {
		e, err := NewEndpoint(s.Authority, EndpointConfig{Name: "server", Local: s.own, EventLogs: tt.logs})
		if err != nil {
			t.Fatal(err)
		}
		client := NewClient(s.peers, &mslhttp.Transport{URL: serve(t, httptest.NewServer(e), e)})
		t.Cleanup(func() { client.Close() })
		noise := make([]byte, tt.size)
		rand.Read(noise)
		answer, err := Exchange(client, "server")(t.Context(), noise)
		if taken := err == nil && strings.Contains(string(answer), "malformed"); taken != tt.taken {
			t.Errorf("%+v: %s, %v", tt, answer, err)
		}
	}
}

// TestLogChanges warns of an attestation that was accepted and shows that the TPM has changed.
func TestLogChanges(t *testing.T) {
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, nil))
	d := enroll.Decision{State: enroll.Enrolled, Attests: true}
	LogDecision(t.Context(), log, d, nil)
	if text.Len() > 0 {
		t.Errorf("nothing has changed: %s", &text)
	}
	d.Changes = []string{"other firmware", "it was put back"}
	LogDecision(t.Context(), log, d, nil)
	for _, want := range []string{"level=WARN", `msg="device attested and its TPM has changed"`, `device.changes="other firmware; it was put back"`} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %s in %s", want, &text)
		}
	}
}
