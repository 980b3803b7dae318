package admin

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
)

// A Signing describes what was signed.
type Signing struct {
	state.Summary
	Enrollments string // the path of their file, or empty
	Unmarked    error  // why the key store cannot record it
}

// SignState authenticates a state file as it is: an operator says that it is right, and
// belongs to the existing keys. Enrollments attached to it are also signed; with
// enrollments set, so is their file.
func SignState(c *config.Config, path string, enrollments bool) (done Signing, err error) {
	r := &Keys{c: c, needs: true}
	defer exit.Closing(&err, r)
	if done.Unmarked, err = signState(r, path, &done.Summary); err != nil {
		return done, err
	}
	if err := signAttached(r, path); err != nil {
		return done, err
	}
	if file := c.Server.Enrollment.File(); enrollments && file != "" && !Absent(file) {
		done.Enrollments = file
		var unmarked error
		unmarked, err = signEnrollments(r, file)
		done.Unmarked = errors.Join(done.Unmarked, unmarked)
	}
	return done, err
}

func signState(r *Keys, path string, sum *state.Summary) (unmarked, err error) {
	s, err := r.states(authkv.Vouch).Reopen(path)
	if err != nil {
		return nil, Unusable(path, err)
	}
	defer exit.Closing(&err, s)
	if !s.Verdict.Authentic {
		return nil, exit.WithCode(fmt.Errorf("the key store has no key %s to authenticate the state: %s", keystore.RoleIssuerMAC.Label(r.c.Keystore.Prefix), keys.MakeServerKeys), exit.Keystore)
	}
	if err := s.ForgetPair(context.Background()); err != nil {
		return nil, err
	}
	*sum, err = s.Summary()
	return s.Verdict.Unmarked, err
}

// signAttached signs a copy of the enrollments in a backup, and attaches it.
func signAttached(r *Keys, backup string) error {
	content, err := bolt.Attached(backup)
	if err != nil || content == nil {
		return err
	}
	err = onCopy(content, func(path string) error {
		if _, err := signEnrollments(r, path); err != nil {
			return err
		}
		content, err = os.ReadFile(path)
		return err
	})
	if err != nil {
		return err
	}
	return bolt.Attach(backup, content)
}

func signEnrollments(r *Keys, path string) (unmarked, err error) {
	f, err := r.enrollments(authkv.Vouch).Open(path)
	if err != nil {
		return nil, err
	}
	return f.Verdict.Unmarked, f.Close()
}
