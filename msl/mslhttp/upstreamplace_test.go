package mslhttp

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
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
	u.diagnose(p, time.Now(), nil)
	if strings.Count(log.String(), "cannot be reached") != 1 || strings.Count(log.String(), "can be reached again") != 1 {
		t.Errorf("after a health check:\n%s", &log)
	}
	for i := range 100 {
		u.failed(p, errors.New("connection refused"))
		u.returned(p, time.Now())
		u.diagnose(p, time.Now(), []error{nil, errors.New("it answered HTTP 500")}[i%2])
	}
	if strings.Count(log.String(), "\n") != 6 {
		t.Errorf("of every second time:\n%s", &log)
	}
}

// TestUpstreamDrains has a service that takes no more connections answer what it has: it cannot be
// reached all the same. What begins later, and is answered, shows that it can.
func TestUpstreamDrains(t *testing.T) {
	for name, answered := range map[string]func(*Upstream, *place, time.Time){
		"request": (*Upstream).returned,
		"check":   func(u *Upstream, p *place, began time.Time) { u.diagnose(p, began, nil) },
	} {
		var log bytes.Buffer
		u := &Upstream{Targets: []Target{target(t, "http://app.invalid")}, Log: slog.New(slog.NewTextHandler(&log, nil))}
		if err := u.open(); err != nil {
			t.Fatal(err)
		}
		p, began := u.places[0], time.Now().Add(-time.Second)
		u.failed(p, errors.New("connection refused"))
		answered(u, p, began)
		if p.fit(time.Now()) || u.States()[0].Err == nil || strings.Contains(log.String(), "again") {
			t.Errorf("%s that began before: %+v\n%s", name, u.States(), &log)
		}
		answered(u, p, time.Now())
		if !p.fit(time.Now()) || u.States()[0].Err != nil || !strings.Contains(log.String(), "again") {
			t.Errorf("%s that began later: %+v\n%s", name, u.States(), &log)
		}
	}
}
