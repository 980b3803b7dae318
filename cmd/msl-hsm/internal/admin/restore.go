package admin

import (
	"context"
	"errors"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
)

// A Restoring replaces a state with a backup. It opens the key store once.
type Restoring struct {
	*Keys
	backup  string
	newKeys bool       // the backup will belong to the existing keys
	newer   state.Pair // the existing keys, if they have a newer version than the backup knows
}

// BeginRestore returns a Restoring, which the caller must close. With newKeys, the backup
// may belong to other keys, which are lost.
func BeginRestore(c *config.Config, backup string, newKeys bool) *Restoring {
	return &Restoring{Keys: &Keys{c: c, needs: !c.Keystore.None()}, backup: backup, newKeys: newKeys}
}

// Fits checks that the backup belongs to the keys of the configuration: otherwise the
// error is [ErrOtherKeys]. The note says what an operator should know about both.
func (r *Restoring) Fits() (note string, err error) {
	known, err := bolt.PairOf(r.backup)
	if err != nil || len(known) == 0 || r.newKeys || r.c.Keystore.None() {
		return "", err
	}
	store, err := r.open()
	if err != nil {
		return "", err
	}
	own, err := prints(store, issuerMAC(r.c))
	if err != nil {
		return "", err
	}
	if note, err = fits(r.c, r.backup, own, known); err == nil && newestOf(own) > newestOf(known) {
		r.newer = own
	}
	return note, err
}

// trust is how far the backup is trusted.
func (r *Restoring) trust() authkv.Trust {
	if r.newKeys {
		return authkv.Vouch
	}
	return authkv.Judge
}

// Enrollments verifies and returns the enrollments in the backup, or nil if it has none.
// They must be authentic.
func (r *Restoring) Enrollments() ([]byte, error) {
	content, err := bolt.Attached(r.backup)
	if err != nil || content == nil {
		return nil, err
	}
	_, err = r.enrollments(r.trust()).CheckCopy(content)
	return content, err
}

// State replaces a state file with the backup.
func (r *Restoring) State(file string, keepTokens bool) (bolt.Restored, error) {
	done, err := r.states(r.trust()).Restore(r.backup, file, keepTokens)
	switch {
	case err != nil:
	case r.newKeys: // it belongs to the keys with which it is used next
		err = r.change(file, func(s *bolt.Server) error { return s.ForgetPair(context.Background()) })
	case r.newer != nil && !keepTokens: // no earlier token is valid any more, so there is nothing to warn of
		err = r.change(file, func(s *bolt.Server) error { return s.AddPair(context.Background(), r.newer) })
	}
	return done, Unusable(r.backup, err)
}

// change changes the state that was restored.
func (r *Restoring) change(file string, change func(*bolt.Server) error) error {
	s, err := r.states(authkv.Judge).Reopen(file)
	if err != nil {
		return err
	}
	return errors.Join(change(s), s.Close())
}

// ReplaceEnrollments replaces the file of enrollments with those of the backup.
func (r *Restoring) ReplaceEnrollments(content []byte, file string) (aside string, err error) {
	return r.enrollments(r.trust()).Restore(content, file)
}
