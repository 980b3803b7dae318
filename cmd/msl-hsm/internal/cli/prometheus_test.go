//go:build cgo && !nopkcs11

package cli

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/porttest"
)

// prometheus is a real one, which reads the metrics of a server each second, and evaluates the
// rules.
type prometheus struct{ address, scraped, token string }

const packaging = "../../../../scripts/packaging/"

// startPrometheus starts one that asks a new address, with a token in a file, until the test
// ends. The test is skipped without the program, or fails if MSL_TEST_REQUIRE names it.
func startPrometheus(t *testing.T) *prometheus {
	t.Helper()
	program, err := exec.LookPath("prometheus")
	if err != nil && slices.Contains(strings.Split(os.Getenv("MSL_TEST_REQUIRE"), ","), "prometheus") {
		t.Fatalf("MSL_TEST_REQUIRE names prometheus: %v", err)
	}
	if err != nil {
		t.Skip("prometheus is not installed")
	}
	dir := t.TempDir()
	p := &prometheus{address: porttest.Address(t), scraped: porttest.Address(t), token: filepath.Join(dir, "token")}
	p.configure(t, filepath.Join(dir, "prometheus.yaml"))
	if err := os.WriteFile(p.token, []byte(strings.Repeat("token-", 8)), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(program, "--config.file", filepath.Join(dir, "prometheus.yaml"), "--storage.tsdb.path", filepath.Join(dir, "data"),
		"--web.listen-address", p.address, "--log.level", "warn")
	var said strings.Builder
	c.Stderr = &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		if _ = c.Wait(); t.Failed() {
			t.Log(said.String())
		}
	})
	return p
}

// configure writes what scripts/packaging has for Prometheus, for the places of this test.
func (p *prometheus) configure(t *testing.T, path string) {
	t.Helper()
	rules, err := filepath.Abs(packaging + "prometheus/msl-hsm.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n" +
		strings.NewReplacer("127.0.0.1:9090", p.scraped, "/etc/prometheus/msl-hsm.token", p.token, "msl-hsm.rules.yaml", rules).
			Replace(readFile(t, packaging+"prometheus/scrape.yaml"))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A sample is a value of a query, and the labels of its series.
type sample struct {
	labels map[string]string
	value  float64
}

// ask asks the HTTP API for data.
func (p *prometheus) ask(t *testing.T, path string, in url.Values, data any) {
	t.Helper()
	resp, err := http.Get("http://" + p.address + "/api/v1/" + path + "?" + in.Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer := struct {
		Error string
		Data  any
	}{Data: data}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Error != "" {
		t.Fatalf("%s %v: %v %s", path, in, err, answer.Error)
	}
}

// query evaluates an expression at a time.
func (p *prometheus) query(t *testing.T, expr string, at time.Time) (all []sample) {
	t.Helper()
	var data struct {
		Result []struct {
			Metric map[string]string
			Value  [2]any
		}
	}
	p.ask(t, "query", url.Values{"query": {expr}, "time": {strconv.FormatInt(at.Unix(), 10)}}, &data)
	for _, r := range data.Result {
		value, err := strconv.ParseFloat(fmt.Sprint(r.Value[1]), 64)
		if err != nil {
			t.Fatal(expr, err)
		}
		all = append(all, sample{r.Metric, value})
	}
	return all
}

// number evaluates an expression that has one value.
func (p *prometheus) number(t *testing.T, expr string, at time.Time) float64 {
	t.Helper()
	all := p.query(t, expr, at)
	if len(all) != 1 {
		t.Fatalf("%s: %v", expr, all)
	}
	return all[0].value
}

// comparePanels wants data of each query of the dashboard: a number at least, and none that is
// negative or infinite. What had no value meanwhile is not a number.
func (p *prometheus) comparePanels(t *testing.T, at time.Time) {
	t.Helper()
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(readFile(t, packaging+"grafana/msl-hsm.json")), &board); err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			asked++
			expr := strings.NewReplacer("$instance", p.scraped, "$__rate_interval", "1h").Replace(target.Expr)
			all := p.query(t, expr, at)
			number := func(s sample) bool { return !math.IsNaN(s.value) }
			wrong := func(s sample) bool { return math.IsInf(s.value, 0) || s.value < 0 }
			if !slices.ContainsFunc(all, number) || slices.ContainsFunc(all, wrong) {
				t.Errorf("panel %q: %s: %v", panel.Title, expr, all)
			}
		}
	}
	if asked < 20 {
		t.Errorf("%d queries in the dashboard", asked)
	}
}

// compareRules wants each rule to be evaluated without an error, what it compares to be there,
// and only the alerts named to fire at that time.
func (p *prometheus) compareRules(t *testing.T, at time.Time, firing ...string) {
	t.Helper()
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Query, Health, LastError string }
		}
	}
	p.ask(t, "rules", nil, &data)
	if len(data.Groups) != 1 || len(data.Groups[0].Rules) < 12 {
		t.Fatalf("rules: %+v", data)
	}
	afterFailure := []string{"MslHsmKeyStoreErrors", "MslHsmUpstreamFails"} // whose series begin with the first one
	for _, rule := range data.Groups[0].Rules {
		compared := strings.TrimRight(rule.Query[:strings.LastIndexAny(rule.Query, "=<>")], "=<> ")
		all := p.query(t, compared, at)
		if rule.Health != "ok" || len(all) == 0 && !slices.Contains(afterFailure, rule.Name) {
			t.Errorf("alert %s: %s %s: %s: %v", rule.Name, rule.Health, rule.LastError, compared, all)
		}
	}
	var got []string
	for _, s := range p.query(t, `ALERTS{alertstate="firing"}`, at) {
		got = append(got, s.labels["alertname"])
	}
	if got = slices.Compact(slices.Sorted(slices.Values(got))); !slices.Equal(got, firing) {
		t.Errorf("alerts that fire: %v, want %v", got, firing)
	}
}
