package mslhttp

import (
	"context"
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestProtection sends a message that has no protection at all.
func TestProtection(t *testing.T) {
	for name, c := range map[string]struct {
		demanded Protection
		want     msl.Code // 0: the application gets it
	}{
		"none":           {Protection{}, 0},
		"encrypted":      {Protection{Encrypted: true, Authenticated: true, NonReplayable: true}, msl.ErrResponseRequiresEncryption},
		"authenticated":  {Protection{Authenticated: true, NonReplayable: true}, msl.ErrResponseRequiresIntegrityProtection},
		"non-replayable": {Protection{NonReplayable: true}, msl.ErrIncompleteNonReplayableMessage},
	} {
		t.Run(name, func(t *testing.T) {
			called := false
			handle := c.demanded.Demand(func(context.Context, *msl.ResponseWriter, *msl.Message) error { called = true; return nil })
			err := judged(t, handle)
			if called != (c.want == 0) || c.want != 0 && !errors.Is(err, c.want) || c.want == 0 && err != nil {
				t.Errorf("called: %v, error %v", called, err)
			}
		})
	}
	unanswerable := func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		w.Encrypted = true
		return Protection{}.Demand(func(context.Context, *msl.ResponseWriter, *msl.Message) error {
			t.Error("the application got a message that cannot be answered")
			return nil
		})(ctx, w, m)
	}
	if err := judged(t, unanswerable); !errors.Is(err, msl.ErrResponseRequiresEncryption) {
		t.Errorf("no answer possible: %v", err)
	}
}

// judged returns what a handler says about a message without protection.
func judged(t *testing.T, handle msl.Handler) error {
	said := errors.New("not called")
	_ = tell(t, func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error { // said has more than the device is told
		said = handle(ctx, w, m)
		return said
	})
	return said
}
