//go:build cgo && !nopkcs11

package cli

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// A selector of a query chooses series of one metric.
var (
	selector = regexp.MustCompile(`\b(msl_hsm_[a-z_]+)(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"`)
	grouping = regexp.MustCompile(`by\s*\(([^)]*)\)`)
)

// unseen are metrics of which the day has no series, and why.
var unseen = map[string]string{
	"msl_hsm_upstream_requests_total": "there is no service behind the server",
	"msl_hsm_state_errors_total":      "the state does not fail",
}

// comparePanels wants each query of the dashboard and of the alerts to choose a series that was
// scraped. The labels instance and job are those of Prometheus, and what has to be wrong for an
// alert was not.
func comparePanels(t *testing.T, scraped string) {
	t.Helper()
	all := seriesOf(scraped)
	checked := 0
	for _, query := range queries(t) {
		for _, found := range selector.FindAllStringSubmatch(query.text, -1) {
			checked++
			if series := all[found[1]]; !query.chooses(series, found[2]) && unseen[found[1]] == "" {
				t.Errorf("%s: %s chooses none of %d series", query.text, found[0], len(series))
			}
		}
	}
	if checked < 40 {
		t.Errorf("%d selectors in the queries", checked)
	}
	t.Logf("%d selectors have answers", checked)
}

// A query is one of a panel, or of an alert.
type query struct {
	text  string
	alert bool
}

func queries(t *testing.T) (all []query) {
	t.Helper()
	var board struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	var rules struct {
		Groups []struct{ Rules []struct{ Expr string } }
	}
	read := func(path string, into any, decode func([]byte, any) error) {
		text, err := os.ReadFile("../../../../scripts/packaging/" + path)
		if err == nil {
			err = decode(text, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	read("grafana/msl-hsm.json", &board, json.Unmarshal)
	read("prometheus/msl-hsm.rules.yaml", &rules, func(b []byte, v any) error { return yaml.Unmarshal(b, v) })
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			all = append(all, query{text: target.Expr})
		}
	}
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			all = append(all, query{text: rule.Expr, alert: true})
		}
	}
	return all
}

// seriesOf returns the labels of each series, by the name of its metric.
func seriesOf(scraped string) map[string][]map[string]string {
	all := map[string][]map[string]string{}
	for line := range strings.Lines(scraped) {
		name := selector.FindStringSubmatch(line)
		if name == nil || strings.HasPrefix(line, "#") {
			continue
		}
		labels := map[string]string{}
		for _, pair := range matcher.FindAllStringSubmatch(name[2], -1) {
			labels[pair[1]] = pair[3]
		}
		all[name[1]] = append(all[name[1]], labels)
	}
	return all
}

// chooses reports whether a selector chooses one of the series, which then have the labels by
// which the query groups. For an alert, the values of labels do not matter.
func (q query) chooses(series []map[string]string, matchers string) bool {
	return slices.ContainsFunc(series, func(labels map[string]string) bool {
		for _, m := range matcher.FindAllStringSubmatch(matchers, -1) {
			value, has := labels[m[1]]
			if !ofPrometheus(m[1]) && (!has || !q.alert && !matches(m[2], m[3], value)) {
				return false
			}
		}
		return true
	}) && q.groups(series)
}

// groups reports whether one of the series has the labels of each grouping.
func (q query) groups(series []map[string]string) bool {
	for _, found := range grouping.FindAllStringSubmatch(q.text, -1) {
		for label := range strings.SplitSeq(found[1], ",") {
			label = strings.TrimSpace(label)
			has := func(labels map[string]string) bool { _, has := labels[label]; return has }
			if !ofPrometheus(label) && !slices.ContainsFunc(series, has) {
				return false
			}
		}
	}
	return true
}

func ofPrometheus(label string) bool { return label == "instance" || label == "job" }

func matches(operator, pattern, value string) bool {
	switch operator {
	case "=":
		return value == pattern
	case "!=":
		return value != pattern
	}
	return regexp.MustCompile("^(?:"+pattern+")$").MatchString(value) == (operator == "=~")
}

// TestPanels tells whether a selector chooses a series.
func TestPanels(t *testing.T) {
	series := seriesOf("# TYPE msl_hsm_x counter\nmsl_hsm_x{code=\"1\",fault=\"none\"} 3\nmsl_hsm_y 1\n")
	for text, want := range map[string]bool{
		`rate(msl_hsm_x[5m])`: true,
		`msl_hsm_y`:           true,
		`msl_hsm_z`:           false,
		`msl_hsm_x{fault="none",instance=~"$instance"}`:            true,
		`msl_hsm_x{fault!="none"}`:                                 false,
		`msl_hsm_x{fault=~"none|peer"}`:                            true,
		`msl_hsm_x{fault!~"none|peer"}`:                            false,
		`msl_hsm_x{colour="red"}`:                                  false,
		`sum by (instance, code) (rate(msl_hsm_x[$__interval]))`:   true,
		`sum by (instance, colour) (msl_hsm_x{fault=~"n.*|peer"})`: false,
	} {
		found := selector.FindStringSubmatch(text)
		if got := (query{text: text}).chooses(series[found[1]], found[2]); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
