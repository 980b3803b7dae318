package admin

import (
	"context"
	"errors"
	"net/http"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// PairRotations is State.Pair for the state behind r. A server that has it open compares
// the keys with those that it recorded.
func PairRotations(c *config.Config, r Rotations, store keystore.Store) (warning string, err error) {
	switch s := r.(type) {
	case unserved:
		_, warning, err = s.Pair(c, store)
	case *State:
		_, warning, err = s.Pair(c, store)
	case remoteRotations:
		err = s.pair(c, store)
	}
	return warning, err
}

// PairRegistry is State.Pair for the state behind r, which is about to receive something
// sealed with the keys of a store. Warnings are left to the start of the server.
func PairRegistry(c *config.Config, r Registry, store keystore.Store) error {
	switch s := r.(type) {
	case *State:
		return s.pairSilently(c, store)
	case auditedRegistry:
		return s.pairSilently(c, store)
	case remoteRegistry:
		return s.pair(c, store)
	}
	return nil
}

func (s *State) pairSilently(c *config.Config, store keystore.Store) error {
	used, err := UsedKeys(c, s.Server)
	if err != nil {
		return err
	}
	own, warning, err := judge(c, used, store)
	if err != nil || warning != "" || len(own) == 0 {
		return err
	}
	return s.AddPair(context.Background(), own)
}

func (r remoteRegistry) pair(c *config.Config, store keystore.Store) error {
	own, err := prints(store, issuerMAC(c))
	if err == nil {
		err = r.call(http.MethodPut, "/pair", own, nil)
	}
	switch {
	case errors.Is(err, errVersion):
		return nil // an earlier version of the server, which runs until it is convenient to restart it
	case errors.Is(err, ErrOtherKeys):
		return otherKeys(c, c.Server.State.String(), ErrOtherKeys)
	}
	return err
}

// PairsFile reports whether a state file exists that belongs to the keys of a store as
// they are, so that [PairFile] can record new ones. Problems with opening it are reported
// where it is used.
func PairsFile(c *config.Config, store keys.Store) (fits bool) {
	onFile(c, store, func(r Rotations) {
		s, local := r.(unserved)
		if !local {
			fits = true // its server has judged it
			return
		}
		used, err := UsedKeys(c, s.Server)
		if err == nil {
			var warning string
			warning, err = ComparePair(c, used, store)
			fits = err == nil && warning == ""
		}
	})
	return fits
}

// PairFile is PairRotations for a state file. Nothing depends on it.
func PairFile(c *config.Config, store keys.Store) {
	onFile(c, store, func(r Rotations) { _, _ = PairRotations(c, r, store) })
}

func onFile(c *config.Config, store keys.Store, do func(Rotations)) {
	if c.Server.State.Path() == "" || Absent(c.Server.State.Path()) {
		return
	}
	if r, err := OpenRotations(c, store); err == nil {
		do(r)
		_ = r.Close()
	}
}

// pairRequests answers commands that examine the keys.
func (s Service) pairRequests(handle handleFunc) {
	handle("PUT /pair", func(r *http.Request) (any, error) {
		own, err := read[state.Pair](r)
		if err != nil {
			return nil, err
		}
		known, err := s.State.Server.Pair(r.Context())
		if err != nil {
			return nil, err
		}
		if _, err := compare(own, known, ""); err != nil || len(own) == 0 {
			return nil, err
		}
		return nil, s.State.AddPair(context.WithoutCancel(r.Context()), own)
	})
}
