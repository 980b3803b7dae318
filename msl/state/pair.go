package state

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A Pair records which keys a state was used with: for each version of the key that
// authenticates tokens, its tag of a constant text. It is not secret.
type Pair map[uint32][]byte

const (
	pairSetting = "pair" // in the settings, and not copied to where other keys may be
	maxVersions = 64     // that are remembered
)

// Pair returns the keys that the state was used with. It is empty if no server has used
// the state yet, or only an earlier version that did not record it.
func (s *Server) Pair(ctx context.Context) (Pair, error) { return PairIn(ctx, s.store) }

// PairIn is Server.Pair for a store that need not be opened as a state.
func PairIn(ctx context.Context, store kv.Store) (p Pair, err error) {
	err = records{store}.view(ctx, "read which keys the state belongs to", func(tx kv.Reader) error {
		p, err = readPair(tx)
		return err
	})
	return p, err
}

func readPair(tx kv.Reader) (p Pair, err error) {
	b, err := tx.Get(kv.Settings, []byte(pairSetting))
	if err == nil && b != nil {
		err = kv.DecodeJSON(b, &p)
	}
	return p, err
}

// AddPair records that the state is used with these versions, at least one. Older ones
// stay, up to 64; earlier ones with the same or a higher number are dropped.
func (s *Server) AddPair(ctx context.Context, own Pair) error { return NotePair(ctx, s.store, own) }

// NotePair is Server.AddPair for a store that need not be opened as a state.
func NotePair(ctx context.Context, store kv.Store, own Pair) error {
	return records{store}.update(ctx, "note which keys the state belongs to", func(tx kv.Tx) error {
		known, err := readPair(tx)
		if err != nil {
			return err
		}
		all := known.with(own)
		if maps.EqualFunc(all, known, slices.Equal) {
			return nil
		}
		text, err := json.Marshal(all)
		if err != nil {
			return err
		}
		return tx.Put(kv.Settings, []byte(pairSetting), text)
	})
}

func (p Pair) with(own Pair) Pair {
	all := maps.Clone(own)
	newest := slices.Max(slices.Collect(maps.Keys(own)))
	for version, print := range p {
		if _, again := own[version]; !again && version < newest {
			all[version] = print
		}
	}
	for _, oldest := range slices.Sorted(maps.Keys(all))[:max(0, len(all)-maxVersions)] {
		delete(all, oldest)
	}
	return all
}

// ForgetPair makes the state belong to the keys with which it is used next.
func (s *Server) ForgetPair(ctx context.Context) error {
	return s.update(ctx, "forget which keys the state belonged to", func(tx kv.Tx) error {
		return tx.Delete(kv.Settings, []byte(pairSetting))
	})
}
