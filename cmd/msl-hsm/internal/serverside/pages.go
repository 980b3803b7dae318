package serverside

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/statuspage"
)

// Pages returns the operators' pages, by pattern of [http.ServeMux]: anyone who gets here
// may see everything, and make the server reload its configuration file.
func (l *Live) Pages() map[string]http.Handler {
	return map[string]http.Handler{
		"GET /healthz":             http.HandlerFunc(alive),
		"GET /readyz":              http.HandlerFunc(l.ready),
		"GET /metrics":             l.Service().Metrics.Handler(),
		"GET /status":              http.HandlerFunc(l.status),
		"POST /reload":             http.HandlerFunc(l.reload),
		"POST /page":               http.HandlerFunc(l.pageURL),
		"GET /debug/pprof/":        http.HandlerFunc(pprof.Index),
		"GET /debug/pprof/profile": http.HandlerFunc(pprof.Profile),
		"GET /debug/pprof/trace":   http.HandlerFunc(pprof.Trace),
	}
}

// alive answers as long as the process can answer.
func alive(w http.ResponseWriter, _ *http.Request) {
	answerJSON(w, http.StatusOK, map[string]bool{"alive": true})
}

// ready answers whether messages can be answered, with the reasons.
func (l *Live) ready(w http.ResponseWriter, r *http.Request) {
	found := l.Service().Ready(r.Context())
	answerJSON(w, statusOf(found), found)
}

// status is ready for a command; its answer is never an error.
func (l *Live) status(w http.ResponseWriter, r *http.Request) {
	answerJSON(w, http.StatusOK, l.Service().Ready(r.Context()))
}

func (l *Live) reload(w http.ResponseWriter, _ *http.Request) {
	r, err := l.Reload()
	if err != nil {
		answerJSON(w, http.StatusConflict, admin.Problem(err))
		return
	}
	answerJSON(w, http.StatusOK, r)
}

func answerJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// AdminServer returns the server of the pages on a loopback address: health and readiness
// in brief for every user of this machine, and everything for those who know a token. No
// page changes anything.
func (l *Live) AdminServer(c *config.Config) (*http.Server, error) {
	if c.Server.Admin.Token != "" {
		hash, err := tokenHash(c)
		if err != nil {
			return nil, err
		}
		l.tokens.Add(hash)
	}
	pages := http.NewServeMux()
	pages.Handle("GET /metrics", l.tokens.Show(l.Service().Metrics.Handler()))
	pages.Handle("GET /healthz", http.HandlerFunc(alive))
	pages.Handle("GET /readyz", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			l.Service().brief().ServeHTTP(w, r)
			return
		}
		l.tokens.Show(http.HandlerFunc(l.ready)).ServeHTTP(w, r)
	}))
	statuspage.Add(pages, l.tokens.Show, l.overview)
	server := &http.Server{
		Handler: pages, ReadTimeout: pageTime, WriteTimeout: pageTime, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10,
		DisableGeneralOptionsHandler: true,
	}
	ctx, stop := context.WithCancel(context.Background())
	server.RegisterOnShutdown(stop)
	go l.Service().past.Run(ctx)
	return server, nil
}

// PageAt sets where the operators' page is, for [Live.PageURL].
func (l *Live) PageAt(url string) { l.page.Store(&url) }

// PageURL returns a URL of the operators' page, with a new token in its fragment, which
// browsers do not send. It is only for the user who runs this server.
func (l *Live) PageURL() (string, error) {
	at := l.page.Load()
	if at == nil {
		return "", exit.Usagef("this server shows no page: restart it with --admin 127.0.0.1:9090, or with server.admin.listen")
	}
	return *at + "#token=" + l.tokens.Make(), nil
}

// pageURL answers with a URL of the page.
func (l *Live) pageURL(w http.ResponseWriter, _ *http.Request) {
	url, err := l.PageURL()
	if err != nil {
		answerJSON(w, http.StatusConflict, admin.Problem(err))
		return
	}
	answerJSON(w, http.StatusOK, url)
}

func tokenHash(c *config.Config) (hash [sha256.Size]byte, err error) {
	token, err := keys.Secret(c.Server.Admin.Token, "token of server.admin")
	if err != nil {
		return hash, err
	}
	defer token.Close()
	if len(token.Bytes()) < minToken {
		return hash, exit.Usagef("server.admin.token has less than %d bytes: make one with (umask 077; head -c 32 /dev/urandom | base64 >FILE)", minToken)
	}
	return sha256.Sum256(token.Bytes()), nil
}

const (
	minToken = 16 // bytes
	pageTime = 10 * time.Second
)
