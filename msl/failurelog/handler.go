package failurelog

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/outage"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// A Handler is the HTTP endpoint for reports; it acknowledges each with an empty answer.
// It accepts nothing else: it refuses an entity that authenticates itself with error
// 4001, a master token with 1000, a user with 2001 or 6042, a key exchange with 7001, a
// service token with 3003, and data that is not a report with 6012. Its fields must not
// change after the first request.
type Handler struct {
	Log  *Log   // where reports go
	Name string // server identity in the answers; empty means "server"

	// Allow reports whether an entity may report; others are refused with error 4006. The
	// identity is only claimed by the sender. Nil allows everyone.
	Allow func(ctx context.Context, identity string) (bool, error)

	PerSource int // messages per second from one source; zero means 5
	PerSecond int // messages per second in all; zero means 100

	// Source returns the source of a request. Nil means the network address of the
	// peer.
	Source func(*http.Request) string
	Logger *slog.Logger // for refused messages, and for outages of Log; nil means none

	once  sync.Once
	inner *mslhttp.Handler
	lost  outage.Outage // of Log
}

// Size limits of a message, in bytes. Its data is Base64-encoded twice.
const (
	maxHeader  = 32 << 10 // allows for other messages, to refuse them with the right code
	maxChunk   = 32 << 10
	maxMessage = 64 << 10
	maxInflate = 4

	maxIdentity = 256
	readTime    = 10 * time.Second
)

// ServeHTTP reads one message and answers it.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.once.Do(func() { h.inner = h.handler() })
	source := mslhttp.SourceOf(r.RemoteAddr)
	if h.Source != nil {
		source = h.Source(r)
	}
	h.inner.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), sourceKey{}, source)))
}

// A sourceKey is the key of the source in the context of a request.
type sourceKey struct{}

// handler has no keys, tokens or state, so nothing in a message can refer to one.
func (h *Handler) handler() *mslhttp.Handler {
	name := h.Name
	if name == "" {
		name = "server"
	}
	return &mslhttp.Handler{
		Server: &msl.Server{
			Name:  name,
			Local: &entityauth.NoneEntity{Identity: name},
			Peers: []msl.EntityScheme{
				&entityauth.None{Directory: admission{h, "NONE"}},
				&entityauth.NoneSuffixed{Directory: admission{h, "NONE_SUFFIXED"}},
			},
			Issuer: &msl.Issuer{},
			Limits: msl.Limits{
				Header: maxHeader, Chunk: maxChunk, Inflate: maxInflate, Sessions: 1,
				ErrorsPerSource: cmp.Or(h.PerSource, 5), ErrorsPerSecond: cmp.Or(h.PerSecond, 100),
			},
			Log: h.Logger,
		},
		Handle:  h.receive,
		MaxBody: maxMessage,
		Timeout: readTime,
		Source:  h.Source,
		Log:     h.Logger,
	}
}

// receive stores one report. The answer means that the report was stored, or that sending
// it again is useless.
func (h *Handler) receive(ctx context.Context, _ *msl.ResponseWriter, m *msl.Message) error {
	if len(m.Identity) > maxIdentity { // a NONE_SUFFIXED root with a long suffix
		return msl.ErrIncorrectEntityAuthData
	}
	if len(m.ServiceTokens) > 0 {
		return msl.Failure(msl.ErrServiceTokenMasterTokenNotFound, "failure report", errors.New("no tokens are accepted here"))
	}
	data, err := io.ReadAll(io.LimitReader(m.Body, maxReport+1))
	if err != nil {
		return err
	}
	report, err := Parse(data)
	if err != nil {
		return err
	}
	source, _ := ctx.Value(sourceKey{}).(string)
	began := time.Now()
	err = h.Log.write(source, newRecords(time.Now(), m.Identity, report))
	if errors.Is(err, errShare) {
		if h.Logger != nil {
			h.Logger.LogAttrs(ctx, slog.LevelWarn, "failure report not kept", slog.String("source", source), slog.String("entity", m.Identity), slog.Any("error", err))
		}
		return nil
	}
	h.tell(ctx, began, err)
	return err
}

// tell logs once that reports cannot be written, as on a full disk, and once that they can be
// again.
func (h *Handler) tell(ctx context.Context, began time.Time, err error) {
	log := cmp.Or(h.Logger, slog.New(slog.DiscardHandler))
	if err != nil {
		h.lost.Failed(err, func() {
			log.LogAttrs(ctx, slog.LevelError, "failure reports cannot be written: free disk space, or fix the cause of the error", slog.Any("error", err))
		})
		return
	}
	h.lost.Worked(began, func() {
		log.LogAttrs(context.WithoutCancel(ctx), slog.LevelInfo, "failure reports can be written again")
	})
}

// An admission admits allowed entities by an unauthenticated scheme.
type admission struct {
	*Handler
	scheme string
}

// Entity implements msl.Directory.
func (a admission) Entity(ctx context.Context, identity string) (*msl.Entity, error) {
	allowed := identity != "" && len(identity) <= maxIdentity
	if allowed && a.Allow != nil {
		var err error
		if allowed, err = a.Allow(ctx, identity); err != nil {
			return nil, err
		}
	}
	if !allowed {
		return nil, keystore.ErrNotFound
	}
	return &msl.Entity{Identity: identity, Scheme: a.scheme}, nil
}
