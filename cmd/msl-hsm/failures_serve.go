package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/failurelog"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
)

// failuresConfig is the server's endpoint for crypto failure log messages.
type failuresConfig struct {
	Log       string        `yaml:"log"`   // file; empty: no endpoint
	Path      string        `yaml:"path"`  // of the URL
	Allow     string        `yaml:"allow"` // registered or anyone
	Size      int64         `yaml:"size"`  // bytes of one file
	Age       time.Duration `yaml:"age"`
	Keep      int           `yaml:"keep"` // files
	PerSource int           `yaml:"per-source"`
	PerSecond int           `yaml:"per-second"`
}

// A failureEndpoint takes reports of failures beside the messages.
type failureEndpoint struct {
	path    string
	handler *failurelog.Handler // nil: there is none
}

func takeFailures(c *config, s *service, log *slog.Logger) (*failureEndpoint, error) {
	f := c.Server.Failures
	if f.Log == "" {
		return &failureEndpoint{}, nil
	}
	if !strings.HasPrefix(f.Path, "/") || f.Path == "/" {
		return nil, usagef("server.failures.path is %q: want one like /failures, since / is for messages", f.Path)
	}
	allow, err := mayReport(c, s.state)
	if err != nil {
		return nil, err
	}
	reports, err := failurelog.OpenLog(f.Log, failurelog.Rotation{Size: f.Size, Age: f.Age, Keep: f.Keep})
	if err != nil {
		return nil, usagef("server.failures.log: %w", err)
	}
	return &failureEndpoint{f.Path, &failurelog.Handler{
		Log: reports, Name: c.Server.Identity, Allow: allow,
		PerSource: f.PerSource, PerSecond: f.PerSecond, Logger: log,
		Source: mslhttp.TrustedProxies(c.Server.TrustedProxies).Source,
	}}, nil
}

// mayReport lets in whoever is registered, for any scheme: who reports a failure of
// its keys cannot use them.
func mayReport(c *config, state *bolt.Server) (func(context.Context, string) (bool, error), error) {
	switch c.Server.Failures.Allow {
	case "anyone":
		return nil, nil
	case "registered":
	default:
		return nil, usagef("server.failures.allow is %q: want registered or anyone", c.Server.Failures.Allow)
	}
	return func(ctx context.Context, identity string) (bool, error) {
		entity, err := state.Entity(ctx, identity)
		if errors.Is(err, keystore.ErrNotFound) {
			return inModelGroup(c, identity), nil
		}
		return err == nil && !entity.Revoked, err
	}, nil
}

// inModelGroup reports whether the identity is one of a group that shares a key.
func inModelGroup(c *config, identity string) bool {
	for prefix := range c.Server.ModelGroups {
		if strings.HasPrefix(identity, prefix) {
			return true
		}
	}
	return false
}

// beside serves the endpoint, and everything else by next.
func (f *failureEndpoint) beside(next http.Handler) http.Handler {
	if f.handler == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == f.path {
			f.handler.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (f *failureEndpoint) Close() error {
	if f.handler == nil {
		return nil
	}
	return f.handler.Log.Close()
}
