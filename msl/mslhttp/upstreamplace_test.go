package mslhttp

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// TestUpstreamOutages has a target that a health check finds well again, and then one that works
// every second time: the log has few lines.
func TestUpstreamOutages(t *testing.T) {
	var log bytes.Buffer
	u := &Upstream{Targets: []Target{target(t, "http://app.invalid")}, Log: slog.New(slog.NewTextHandler(&log, nil))}
	if err := u.open(); err != nil {
		t.Fatal(err)
	}
	p := u.places[0]
	u.failed(p, errors.New("connection refused"))
	u.diagnose(p, nil)
	if strings.Count(log.String(), "cannot be reached") != 1 || strings.Count(log.String(), "can be reached again") != 1 {
		t.Errorf("after a health check:\n%s", &log)
	}
	for i := range 100 {
		u.failed(p, errors.New("connection refused"))
		u.returned(p)
		u.diagnose(p, []error{nil, errors.New("it answered HTTP 500")}[i%2])
	}
	if strings.Count(log.String(), "\n") != 6 {
		t.Errorf("of every second time:\n%s", &log)
	}
}
