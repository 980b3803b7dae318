package clientside

import (
	"context"
	"errors"
	"fmt"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state/anchor"
)

// anchored returns the client's state file, bound to a counter in the TPM if so
// configured.
func anchored(c *config.Config, ctx context.Context, k *Client, tell *Trace) (msl.ClientState, error) {
	at, err := c.Client.AntiRollbackIndex()
	switch {
	case err != nil:
		return nil, err
	case at == 0 && k.state == nil:
		return &noState{}, nil
	case at == 0:
		return unanchored{k.state}, nil
	case k.state == nil:
		return nil, exit.Usagef("anti-rollback needs a state file to protect: give --state FILE")
	case k.device == nil:
		return nil, exit.Usagef("anti-rollback needs a TPM that counts: give --keystore tpm:?state=FILE")
	}
	r, err := k.state.Load(ctx)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%#x", uint32(at))
	_, gone := k.device.Store.Counter(at)
	counter, err := k.device.Store.DefineCounter(at)
	if err == nil && errors.Is(gone, keystore.ErrNotFound) && anchor.BoundTo(r) == name {
		err = k.state.Save(ctx, msl.ClientRecord{})
		tell.warn(fmt.Errorf("the TPM no longer has the counter %s of %s, as after it was cleared: a new session begins", name, c.Client.State))
	}
	if err != nil {
		return nil, err
	}
	return &anchor.Client{State: k.state, Counter: counter, Name: name, Notice: tell.warn}, nil
}

// warn prints an error that does not stop the client.
func (s *Trace) warn(err error) { fmt.Fprintln(s.Out, "msl-hsm:", exit.OneLine(err)) }

// An unanchored state counts message ids itself. It does not continue a session whose ids
// came from a counter, because they would start over.
type unanchored struct{ msl.ClientState }

func (u unanchored) Load(ctx context.Context) (msl.ClientRecord, error) {
	r, err := u.ClientState.Load(ctx)
	if r.Anchor != nil {
		r = msl.ClientRecord{}
	}
	return r, err
}
