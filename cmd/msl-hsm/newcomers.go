package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"

	"golang.org/x/time/rate"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// enroller is a server for devices that have no identity yet. Its tokens are its
// own: they open nothing of the server beside it.
func (s *service) enroller(a *authority, log *slog.Logger) (*msl.Server, handler, error) {
	store := soft.New()
	issuer, err := temporaryIssuer(store, s.msl.Name)
	if err != nil {
		return nil, nil, err
	}
	server := &msl.Server{
		Name: s.msl.Name, Local: s.msl.Local, Issuer: issuer, State: newcomers{},
		Peers:        []msl.EntityScheme{&entityauth.Provisioned{Assign: newcomer}},
		KeyExchanges: []msl.Responder{&keyx.AsymmetricWrapped{Store: store}},
		Limits:       newcomersLimits(s.msl.Limits), Log: log,
	}
	return server, func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		request, err := io.ReadAll(io.LimitReader(m.Body, enroll.MaxMessage+1))
		if err != nil {
			return err
		}
		answer, err := a.Handle(ctx, request)
		if err != nil {
			log.LogAttrs(ctx, slog.LevelInfo, "device not enrolled", slog.Any("error", err))
		}
		_, err = w.Write(answer)
		return err
	}, nil
}

// newcomersLimits are for short messages.
func newcomersLimits(l msl.Limits) msl.Limits {
	const most = 4 * enroll.MaxMessage
	l.Header, l.Chunk, l.Held = most, most, most
	l.Unproven, l.Proven = enrollMemory, enrollMemory
	return l
}

// temporaryIssuer makes an issuer whose keys end with the process.
func temporaryIssuer(store *soft.Store, name string) (*msl.Issuer, error) {
	encryption, err := store.Create("encryption", keystore.AES128CBC)
	if err != nil {
		return nil, err
	}
	mac, err := store.Create("mac", keystore.HMACSHA256)
	if err != nil {
		return nil, err
	}
	return &msl.Issuer{Name: name, Store: store, Keys: []msl.IssuerKeys{{
		Version: 1, Encryption: encryption.Key.(keystore.Cipher), MAC: mac.Key.(keystore.MAC),
	}}}, nil
}

// newcomers are those who enroll. Nothing is remembered of them, since there is no
// end of them: a token is not renewed, and nothing is non-replayable.
type newcomers struct{}

func (newcomers) Revoked(context.Context, string, string) error { return nil }

func (newcomers) AcceptID(context.Context, string, int64, int64) error {
	return msl.ErrMessageReplayedUnrecoverable
}

func (newcomers) Renewable(context.Context, string, int64, int64) error {
	return msl.ErrMasterTokenSequenceNumberOutOfSync
}

func (newcomers) Renew(context.Context, string, int64, int64) (int64, error) {
	return 0, msl.ErrMasterTokenSequenceNumberOutOfSync
}

// newcomersPerSecond bounds their messages, three for an enrollment. The answer to
// a first one costs an operation with the server's private key.
const newcomersPerSecond = 100

// throttled refuses what is more than that.
func throttled(next http.Handler) http.Handler {
	limit := rate.NewLimiter(newcomersPerSecond, 2*newcomersPerSecond)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !limit.Allow() {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// newcomer names a device that has no name yet.
func newcomer(context.Context) (string, error) {
	b := make([]byte, 16)
	rand.Read(b)
	return "newcomer-" + hex.EncodeToString(b), nil
}
