package mslhttp

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/safetext"
)

// A HealthCheck regularly checks whether each target of an [Upstream] works: it does if
// it answers a GET with a status less than 400.
type HealthCheck struct {
	Path     string        // such as /healthz or /healthz?x=1, added to those of the target; empty means no checks
	Interval time.Duration // between checks; zero means 10 seconds
	Timeout  time.Duration // of one check; zero means 5 seconds, or Interval if that is less
}

// CheckHealthPath returns why [HealthCheck].Path is not a valid path, optionally with a
// query, or nil.
func CheckHealthPath(path string) error {
	_, err := url.ParseRequestURI(path)
	if err != nil || !strings.HasPrefix(path, "/") || strings.ContainsFunc(path, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '#' }) {
		return fmt.Errorf("%q: want a path, such as /healthz", path)
	}
	return nil
}

const (
	defaultCheckInterval = 10 * time.Second
	defaultCheckTimeout  = 5 * time.Second
)

// watch checks one place until ctx ends.
func (u *Upstream) watch(ctx context.Context, p *place) {
	interval := cmp.Or(u.Check.Interval, defaultCheckInterval)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		began := time.Now()
		if err := u.check(ctx, p, cmp.Or(u.Check.Timeout, min(defaultCheckTimeout, interval))); ctx.Err() == nil {
			u.diagnose(p, began, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (u *Upstream) check(ctx context.Context, p *place, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.healthURL(u.Check.Path), nil)
	if err != nil {
		return err
	}
	r.Header.Set("User-Agent", userAgent)
	u.addFixed(r.Header)
	p.authorize(r)
	response, err := p.transport.RoundTrip(r)
	if err != nil {
		return safetext.Brief(err)
	}
	response.Body.Close()
	if response.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("it answered HTTP %d %s", response.StatusCode, http.StatusText(response.StatusCode))
	}
	return nil
}

// diagnose records the result of a check that began then.
func (u *Upstream) diagnose(p *place, began time.Time, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.health.Failed(err, func() { u.log(slog.LevelWarn, "upstream fails its health check", p, slog.Any("error", err)) })
	} else {
		p.health.Worked(began, func() { u.log(slog.LevelInfo, "upstream passes its health check again", p) })
	}
	if p.sick = err != nil; p.sick || u.reached(p, began) {
		p.tried, p.why = time.Now(), err
	}
}
