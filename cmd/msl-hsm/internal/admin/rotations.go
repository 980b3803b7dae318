package admin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// Rotations let a command and the servers of a state agree on key versions: in the state
// itself or, while a server has it open, through that server.
type Rotations interface {
	Rotation(context.Context) (state.Rotation, error)
	SetRotation(context.Context, state.Rotation) error
	Presences(context.Context) (map[string]state.Presence, error)
	RemovePresence(ctx context.Context, id string) error
	Clock(ctx context.Context, keep time.Duration) (state.Clock, error)
	Entities() ([]state.EntityRecord, error)
	Reseal(ctx context.Context, identity string, old, again msl.SealedPSK) error
	io.Closer
}

// OpenRotations connects to a running server, or opens the state, which the keys of a store
// authenticate. A state in a file that no server has open has no servers.
func OpenRotations(c *config.Config, store keys.Store) (Rotations, error) {
	if err := FindState(c, ""); err != nil {
		return nil, err
	}
	if remote, err := dialFile(c); remote != nil || err != nil {
		return remoteRotations{remoteRegistry{remote}}, err
	}
	h, err := hold(c, store)
	if err != nil {
		return nil, err
	}
	err = h.renew() // older versions may be destroyed
	if h.records != nil {
		err = errors.Join(err, h.records.Close())
	}
	if err != nil {
		return nil, errors.Join(err, h.state.Close())
	}
	if h.state.File != nil {
		return unserved{h.state}, nil
	}
	return h.state, nil
}

// unserved is a state that no server has open.
type unserved struct{ *State }

func (unserved) Presences(context.Context) (map[string]state.Presence, error) { return nil, nil }

type remoteRotations struct{ remoteRegistry }

func (r remoteRotations) Rotation(context.Context) (now state.Rotation, err error) {
	err = r.call(http.MethodGet, "/rotation", nil, &now)
	return now, err
}

func (r remoteRotations) SetRotation(_ context.Context, next state.Rotation) error {
	return r.call(http.MethodPut, "/rotation", next, nil)
}

func (r remoteRotations) Presences(context.Context) (all map[string]state.Presence, err error) {
	err = r.call(http.MethodGet, "/servers", nil, &all)
	return all, err
}

func (r remoteRotations) RemovePresence(_ context.Context, id string) error {
	return r.call(http.MethodDelete, "/servers?name="+url.QueryEscape(id), nil, nil)
}

// clockSlack allows for differences between server clocks.
const clockSlack = time.Hour

// Clock asks the server, which has its own keep. One of an earlier version knows only the
// clock of this machine.
func (r remoteRotations) Clock(_ context.Context, keep time.Duration) (c state.Clock, err error) {
	err = r.call(http.MethodGet, "/clock", nil, &c)
	if errors.Is(err, errVersion) {
		now := time.Now()
		return state.Clock{Now: now, Ended: now.Add(-keep - clockSlack)}, nil
	}
	return c, err
}

// A resealing is the body of a request to seal keys of an entity again.
type resealing struct{ Old, Again msl.SealedPSK }

func (r remoteRotations) Reseal(_ context.Context, identity string, old, again msl.SealedPSK) error {
	return r.about(http.MethodPut, "/entities/keys", identity, resealing{old, again})
}

func (s Service) rotationRequests(handle handleFunc) {
	handle("GET /rotation", func(r *http.Request) (any, error) { return s.State.Rotation(r.Context()) })
	handle("PUT /rotation", func(r *http.Request) (any, error) {
		next, err := read[state.Rotation](r)
		if err != nil {
			return nil, err
		}
		return nil, s.State.SetRotation(context.WithoutCancel(r.Context()), next)
	})
	handle("PUT /entities/keys", func(r *http.Request) (any, error) {
		k, err := read[resealing](r)
		if err != nil {
			return nil, err
		}
		return nil, s.State.Reseal(context.WithoutCancel(r.Context()), name(r), k.Old, k.Again)
	})
	handle("GET /clock", func(r *http.Request) (any, error) { return s.State.Clock(r.Context(), s.Keep) })
	handle("GET /servers", func(r *http.Request) (any, error) { return s.State.Presences(r.Context()) })
	handle("DELETE /servers", func(r *http.Request) (any, error) {
		return nil, s.State.RemovePresence(context.WithoutCancel(r.Context()), name(r))
	})
}
