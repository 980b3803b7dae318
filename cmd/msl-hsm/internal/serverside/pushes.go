package serverside

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/weborigin"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// Pushes deliver what programs on this machine post to the clients waiting for it.
type Pushes struct {
	mu      sync.Mutex
	waiting map[*waiter]struct{}
}

// A waiter is a connection whose client is waiting.
type waiter struct {
	entity, user string
	posts        chan post
	gone         chan struct{} // closed when it stops waiting
}

// A post is data for one waiter.
type post struct {
	data []byte
	sent chan error // receives nil when it was sent, or why not
}

const (
	pushSize     = 1 << 20          // bytes of one push
	pushesAtOnce = 16               // in memory
	pushPatience = 10 * time.Second // for a client to take it
)

// A seat is a connection whose client may wait: from the beginning of its message until
// the next message is awaited.
type seat struct {
	*mslhttp.StreamConn
	pushes *Pushes
	waits  *waiter // or nil
}

// take lets the sender of a message wait.
func (s *seat) take(m *msl.Message) {
	s.leave()
	s.waits = s.pushes.join(m.Identity, m.User)
}

func (s *seat) leave() {
	if s.waits != nil {
		s.pushes.leave(s.waits)
	}
	s.waits = nil
}

// Between ends the seat of a client whose message did not lead to waiting: it received an
// error.
func (s *seat) Between() {
	s.leave()
	s.StreamConn.Between()
}

// servePushes answers a message, and keeps its sender waiting for more until it sends
// another one or goes away.
func servePushes(all *Pushes) func(*generation, context.Context, *mslhttp.StreamConn) error {
	return func(g *generation, ctx context.Context, c *mslhttp.StreamConn) error {
		own := &seat{StreamConn: c, pushes: all}
		defer own.leave()
		return g.MSL.ServeStream(ctx, c.Source, own, g.whileTrusted(c, func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			if !m.Authenticated {
				return msl.ErrRejectEntity
			}
			own.take(m)
			w.Afterward(func() error {
				w.Encrypted, w.Authenticated = true, true
				return g.push(context.Background(), own, m, func(_ context.Context, data []byte) error {
					return w.Push(c, func(message *msl.ResponseWriter) error { _, err := message.Write(data); return err })
				})
			})
			return g.handle(ctx, w, m)
		}))
	}
}

// push sends what is posted to the sender of an answered message.
func (s *Service) push(ctx context.Context, to *seat, m *msl.Message, send func(context.Context, []byte) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go s.watchTrust(ctx, to.StreamConn, m.Identity, m.User)
	for {
		select {
		case <-to.Readable():
			return nil
		case <-to.Leaving():
			return nil
		case p := <-to.waits.posts:
			err := s.State.Revoked(ctx, m.Identity, m.User)
			if err == nil {
				err = send(ctx, p.data)
			}
			if p.sent <- err; err != nil {
				return err
			}
		}
	}
}

func (a *Pushes) join(entity, user string) *waiter {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting == nil {
		a.waiting = map[*waiter]struct{}{}
	}
	w := &waiter{entity: entity, user: user, posts: make(chan post), gone: make(chan struct{})}
	a.waiting[w] = struct{}{}
	return w
}

func (a *Pushes) leave(w *waiter) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiting, w)
	close(w.gone)
}

// those returns the waiters of an entity and, if one is named, its user.
func (a *Pushes) those(entity, user string) (found []*waiter) {
	entity, user = msl.CanonicalName(entity), msl.CanonicalName(user) // as a [msl.Message] has them
	a.mu.Lock()
	defer a.mu.Unlock()
	for w := range a.waiting {
		if w.entity == entity && (user == "" || w.user == user) {
			found = append(found, w)
		}
	}
	return found
}

// give passes data to a waiter, and reports whether it was sent.
func (w *waiter) give(ctx context.Context, data []byte) bool {
	p := post{data, make(chan error, 1)}
	select {
	case w.posts <- p:
	case <-w.gone:
		return false
	case <-ctx.Done():
		return false
	}
	select {
	case err := <-p.sent:
		return err == nil
	case <-ctx.Done():
		return false
	}
}

// deliver passes data to all waiters of an entity concurrently, and returns how many it
// was sent to.
func (a *Pushes) deliver(ctx context.Context, entity, user string, data []byte) (sent int) {
	ctx, cancel := context.WithTimeout(ctx, pushPatience)
	defer cancel()
	to := a.those(entity, user)
	results := make(chan bool, len(to))
	for _, w := range to {
		go func() { results <- w.give(ctx, data) }()
	}
	for range to {
		if <-results {
			sent++
		}
	}
	return sent
}

// Server accepts posts from programs, not from web pages: POST /ENTITY, or
// /ENTITY?user=USER. The answer says how many clients received it; its status is 404 if
// there were none.
func (a *Pushes) Server(log *slog.Logger) *http.Server {
	m := http.NewServeMux()
	room := make(chan struct{}, pushesAtOnce)
	m.HandleFunc("POST /{entity}", func(w http.ResponseWriter, r *http.Request) {
		if err := weborigin.Check(r, true); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		room <- struct{}{}
		defer func() { <-room }()
		a.take(w, r)
	})
	return &http.Server{
		Handler: m, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 8 << 10, DisableGeneralOptionsHandler: true, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// userOf returns the user named in a post, or "". Any other query is refused: the post
// would go to every user of the entity.
func userOf(r *http.Request) (string, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	users := query["user"]
	if err != nil || len(query) > 1 || len(query) == 1 && (len(users) != 1 || users[0] == "") {
		return "", errors.New("the query must be that of one user, percent-encoded, as in ?user=ada@example.com, or absent")
	}
	return query.Get("user"), nil
}

func (a *Pushes) take(w http.ResponseWriter, r *http.Request) {
	user, err := userOf(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, pushSize))
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		http.Error(w, "a pushed message may have at most 1 MiB", http.StatusRequestEntityTooLarge)
		return
	case err != nil:
		http.Error(w, "the data is incomplete", http.StatusBadRequest)
		return
	}
	sent := a.deliver(r.Context(), r.PathValue("entity"), user, data)
	w.Header().Set("Content-Type", "application/json")
	if sent == 0 {
		w.WriteHeader(http.StatusNotFound)
	}
	json.NewEncoder(w).Encode(map[string]int{"delivered": sent})
}
