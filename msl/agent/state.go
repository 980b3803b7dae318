package agent

import (
	"bytes"
	"context"

	"github.com/msl-hsm/msl-hsm/msl"
)

// WatchState wraps the state of a client. It calls renewed with the new record when a
// different master token is about to be stored.
func WatchState(state msl.ClientState, renewed func(msl.ClientRecord)) msl.ClientState {
	return &watchedState{ClientState: state, renewed: renewed}
}

// A watchedState remembers the last master token loaded or saved. Its client calls Load
// and Save one at a time.
type watchedState struct {
	msl.ClientState
	renewed func(msl.ClientRecord)
	token   []byte
}

func (s *watchedState) Load(ctx context.Context) (msl.ClientRecord, error) {
	r, err := s.ClientState.Load(ctx)
	s.token = r.MasterToken
	return r, err
}

func (s *watchedState) Save(ctx context.Context, r msl.ClientRecord) error {
	if !bytes.Equal(r.MasterToken, s.token) && r.MasterToken != nil {
		s.renewed(r)
	}
	s.token = r.MasterToken
	return s.ClientState.Save(ctx, r)
}
