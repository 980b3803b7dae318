//go:build !nometrics

package metrics

import (
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

func read(t testing.TB, s *Set) string {
	t.Helper()
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

var served = msl.Served{Identity: "camera", Authenticated: true, Scheme: "PSK", KeyExchange: "SYMMETRIC_WRAPPED", Message: &msl.Message{},
	Read: 1000, Written: 2000, Took: 3 * time.Millisecond, Code: -1}

// filled is a set with something of everything.
func filled() *Set {
	s := New("v1", "abc")
	s.Message(served)
	s.Message(msl.Served{Response: msl.Replayed, Code: msl.ErrMessageReplayed, Err: msl.ErrMessageReplayed, Fault: msl.FaultPeer})
	s.Message(msl.Served{Response: msl.Fail, Code: 77777, Err: errors.New("own"), Fault: msl.FaultApplication})
	s.Message(msl.Served{Code: -1, Err: msl.ErrNoAnswer, Fault: msl.FaultLoad})
	s.Message(msl.Served{Code: -1, Authenticated: true, Scheme: "made up by a stranger", KeyExchange: "another"})
	s.Call(keystore.Call{Function: "C_Sign", Queue: time.Millisecond, Run: 2 * time.Millisecond})
	s.Call(keystore.Call{Queue: 5 * time.Second, Err: keystore.ErrBusy})
	s.Call(keystore.Call{Err: keystore.ErrUnavailable})
	s.Upstream(mslhttp.UpstreamCall{Target: "http://a/", Status: 204, Took: time.Millisecond})
	s.Upstream(mslhttp.UpstreamCall{Target: "http://a/", Took: time.Millisecond, Err: errors.New("refused")})
	s.Upstream(mslhttp.UpstreamCall{Target: "http://a/", Status: 999, Took: time.Millisecond})
	s.State("renew", time.Millisecond, errors.New("full"))
	s.State("unheard of", time.Millisecond, nil)
	s.Watch(func() []Value {
		return []Value{
			{Name: "sessions", Help: "x", Value: 7}, {Name: "connections", Help: "x", Value: 2},
			{Name: "session_lookups_total", Help: "x", Value: 1, Counts: true, Labels: [][2]string{{"result", "hit"}}},
			{Name: "issuer_key_versions", Help: "x", Value: 1, Labels: [][2]string{{"version", "1"}}},
			{Name: "issuer_key_used_timestamp_seconds", Help: "x", Value: 1, Labels: [][2]string{{"version", "1"}}},
			{Name: "certificate_not_after_timestamp_seconds", Help: "x", Value: 1, Labels: [][2]string{{"setting", "a"}, {"file", "b"}}},
			{Name: "revocation_list_this_update_timestamp_seconds", Help: "x", Value: 1}, {Name: "revocation_list_next_update_timestamp_seconds", Help: "x", Value: 1},
			{Name: "keystore_sessions", Help: "x", Value: 1, Labels: [][2]string{{"state", "open"}}},
			{Name: "keystore_opened_total", Help: "x", Value: 1, Counts: true}, {Name: "keystore_objects", Help: "x", Value: 1},
			{Name: "message_memory_bytes", Help: "x", Value: 1, Labels: [][2]string{{"sender", "proven"}}},
			{Name: "tls_alerts_total", Help: "x", Value: 1, Counts: true, Labels: [][2]string{{"alert", "a"}, {"origin", "b"}}},
			{Name: "audit_works", Help: "x", Value: 1},
			{Name: "turned_away_total", Help: "x", Value: 1, Counts: true, Labels: [][2]string{{"reason", "exchanges"}}},
			{Name: "ready", Help: "x", Value: 1, Labels: [][2]string{{"check", "state"}}},
		}
	})
	return s
}

func TestSet(t *testing.T) {
	text := read(t, filled())
	for _, want := range []string{
		`msl_hsm_messages_total{fault="none",result="answered"} 1`,
		`msl_hsm_messages_total{fault="none",result="handshake"} 1`,
		`msl_hsm_messages_total{fault="peer",result="refused"} 1`,
		`msl_hsm_messages_total{fault="application",result="refused"} 1`,
		`msl_hsm_messages_total{fault="load",result="unanswered"} 1`,
		`msl_hsm_messages_total{fault="server",result="refused"} 0`,
		`msl_hsm_message_bytes_total{direction="read"} 1000`,
		`msl_hsm_handshakes_total{scheme="SYMMETRIC_WRAPPED"} 1`,
		`msl_hsm_handshakes_total{scheme="other"} 1`,
		`msl_hsm_entity_authentications_total{scheme="other"} 1`,
		`msl_hsm_replays_total 1`,
		`msl_hsm_refusals_total{code="other",name="other"} 1`,
		`msl_hsm_keystore_call_seconds_bucket{function="C_Sign",le="0.0025"} 1`,
		`msl_hsm_keystore_queue_seconds_count 2`,
		`msl_hsm_keystore_errors_total{error="busy",function=""} 1`,
		`msl_hsm_keystore_errors_total{error="unavailable",function=""} 1`,
		`msl_hsm_upstream_requests_total{status="2xx",target="http://a/"} 1`,
		`msl_hsm_upstream_requests_total{status="9xx",target="http://a/"} 1`,
		`msl_hsm_upstream_requests_total{status="none",target="http://a/"} 1`,
		`msl_hsm_state_errors_total{operation="renew"} 1`,
		`msl_hsm_build_info{revision="abc",version="v1"} 1`,
		`msl_hsm_sessions 7`,
	} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	for _, stranger := range []string{"made up", "another", "camera"} {
		if strings.Contains(text, stranger) {
			t.Errorf("a name of a stranger is in the metrics: %q", stranger)
		}
	}
}

// TestQueries wants the dashboard and the rules to ask for metrics that there are.
func TestQueries(t *testing.T) {
	text := read(t, filled())
	names := 0
	for _, file := range []string{"prometheus/msl-hsm.rules.yaml", "grafana/msl-hsm.json"} {
		queries, err := os.ReadFile(filepath.Join("../../../../scripts/packaging", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\bmsl_hsm_[a-z_]+`).FindAllString(string(queries), -1) {
			names++
			if !strings.Contains(text, "\n"+name+"{") && !strings.Contains(text, "\n"+name+" ") {
				t.Errorf("%s asks for %s, which is not a metric", file, name)
			}
		}
	}
	if names < 20 {
		t.Errorf("found %d metrics in the queries", names)
	}
}

// TestRules has promtool check and test the rules, and check the metrics, where it is there.
func TestRules(t *testing.T) {
	tool, err := exec.LookPath("promtool")
	if err != nil && slices.Contains(strings.Split(os.Getenv("MSL_TEST_REQUIRE"), ","), "prometheus") {
		t.Fatalf("MSL_TEST_REQUIRE names prometheus: %v", err)
	}
	if err != nil {
		t.Skip("promtool is not installed")
	}
	for _, args := range [][]string{{"check", "rules", rules}, {"test", "rules", rulesTest}} {
		if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v: %s", args[0], err, out)
		}
	}
	check := exec.Command(tool, "check", "metrics")
	check.Stdin = strings.NewReader(read(t, filled()))
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

const (
	rules     = "../../../../scripts/packaging/prometheus/msl-hsm.rules.yaml"
	rulesTest = "../../../../scripts/packaging/prometheus/msl-hsm.rules.test.yaml"
)

// TestRulesTested wants of each alert a moment at which it fires, and one at which it does not.
func TestRulesTested(t *testing.T) {
	var alerts struct {
		Groups []struct{ Rules []struct{ Alert string } }
	}
	var tests struct {
		Tests []struct {
			Moments []struct {
				Name string `yaml:"alertname"`
				Want []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	for path, into := range map[string]any{rules: &alerts, rulesTest: &tests} {
		text, err := os.ReadFile(path)
		if err == nil {
			err = yaml.Unmarshal(text, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range tests.Tests {
		for _, m := range test.Moments {
			fires[m.Name], silent[m.Name] = fires[m.Name] || len(m.Want) > 0, silent[m.Name] || len(m.Want) == 0
		}
	}
	for _, rule := range alerts.Groups[0].Rules {
		if !fires[rule.Alert] || !silent[rule.Alert] {
			t.Errorf("%s: tested to fire: %v, and to be silent: %v", rule.Alert, fires[rule.Alert], silent[rule.Alert])
		}
	}
	if len(alerts.Groups) != 1 || len(fires) < 12 {
		t.Errorf("%d groups, tests of %d alerts", len(alerts.Groups), len(fires))
	}
}

// TestTwice wants values with the same name and labels not to keep the others back.
func TestTwice(t *testing.T) {
	s := New("v1", "abc")
	s.Watch(func() []Value { return []Value{{Name: "a", Help: "x"}, {Name: "a", Help: "x"}, {Name: "b", Help: "x"}} })
	if text := read(t, s); !strings.Contains(text, "\nmsl_hsm_b 0\n") {
		t.Error(text)
	}
}

func BenchmarkMessage(b *testing.B) {
	s := New("v1", "abc")
	for b.Loop() {
		s.Message(served)
	}
}

func BenchmarkCall(b *testing.B) {
	s := New("v1", "abc")
	for b.Loop() {
		s.Call(keystore.Call{Function: "C_Sign", Queue: time.Microsecond, Run: time.Microsecond})
	}
}
