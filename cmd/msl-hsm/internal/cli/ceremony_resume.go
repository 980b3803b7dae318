//go:build cgo && !nopkcs11

package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// plan is what the ceremony makes, the signing key first.
func (x *ceremony) plan() []config.CeremonyKey {
	return append([]config.CeremonyKey{{Label: x.Signer, Algorithm: keystore.ECDSAP256}}, x.Keys...)
}

// unwritten checks that no transcript exists yet, unless the ceremony was interrupted
// between its transcript and its end.
func (x *ceremony) unwritten(f ceremonyFlags, interrupted bool) error {
	switch _, err := os.Lstat(x.Transcript); {
	case errors.Is(err, fs.ErrNotExist) || interrupted && f.goOn:
		return nil
	case err != nil:
		return err
	case interrupted:
		return exit.Usagef("there is a transcript %s already, and %s: finish that ceremony with --continue", x.Transcript, x.journal)
	}
	return exit.Usagef("there is a transcript %s already: keep it, and name another in the file", x.Transcript)
}

// resume takes over what is in a journal. Nobody signed that: it must therefore be what
// this ceremony writes, and the rest is read again from the file of the ceremony and from
// the token.
func (x *ceremony) resume(path, sum string, journal []byte, f ceremonyFlags) error {
	if err := json.Unmarshal(journal, &x.state); err != nil {
		return fmt.Errorf("%s is damaged: %w; msl-hsm key list shows which keys there are", x.journal, err)
	}
	if x.state.Plan != sum {
		return exit.Usagef("%s was changed since the ceremony began: put it back, or finish it with the file as it was", path)
	}
	if err := x.possible(); err != nil {
		return err
	}
	if !f.goOn && !f.cleanUp {
		return exit.Usagef("this ceremony was interrupted at key %d of %d (%s): resume it with --continue, or undo it with --clean-up", len(x.state.Keys), len(x.Keys)+1, x.journal)
	}
	x.state.Title, x.state.Operator, x.state.Witnesses, x.state.DryRun = x.Title, x.Operator, x.Witnesses, false
	x.state.Continued = append(x.state.Continued, now())
	return nil
}

// possible checks that the keys in the journal are those in the file; only the last one
// may be incomplete.
func (x *ceremony) possible() error {
	plan := x.plan()
	for i, e := range x.state.Keys {
		if i >= len(plan) || e.Label != plan[i].Label || e.Made.IsZero() && i != len(x.state.Keys)-1 {
			return fmt.Errorf("%s is not what this ceremony wrote: somebody changed it; msl-hsm key list shows which keys there are", x.journal)
		}
	}
	return nil
}

// take asks for the token's identity, which must match the journal.
func (x *ceremony) take(k *config.Keystore) error {
	token, err := tokenOf(k)
	if err != nil {
		return err
	}
	before := x.state.Token
	if len(x.state.Keys) > 0 && (before.Label != token.Label || before.Serial != token.Serial) {
		return exit.Usagef("the ceremony began with the token %q, serial %s, and this is %q, serial %s: name that one", before.Label, exit.Printable(before.Serial), token.Label, exit.Printable(token.Serial))
	}
	x.state.Token = token
	return nil
}

// again reads a key made before the interruption, which must match its record.
func (x *ceremony) again(i int) error {
	noted := x.state.Keys[i]
	found, err := x.describe(noted.Label)
	if err != nil {
		return err
	}
	found.Made = noted.Made
	before, errBefore := json.Marshal(noted)
	after, errAfter := json.Marshal(found)
	if err := errors.Join(errBefore, errAfter); err != nil {
		return err
	}
	if !bytes.Equal(before, after) {
		return fmt.Errorf("the key %q is not as it was when it was made: it was replaced, or somebody changed %s", noted.Label, x.journal)
	}
	return nil
}

// undo destroys the keys in the journal, after checking that all are the recorded ones.
func (x *ceremony) undo() error {
	newest, err := keys.Newest(x.store)
	if err != nil {
		return err
	}
	for i, k := range x.state.Keys {
		if _, there := newest[k.Label]; !there || k.Made.IsZero() {
			continue
		}
		if err := x.again(i); err != nil {
			return fmt.Errorf("%w; nothing is destroyed", err)
		}
	}
	for _, k := range slices.Backward(x.state.Keys) {
		if err := x.store.Destroy(k.Label, 0); err != nil && !errors.Is(err, keystore.ErrNotFound) {
			return fmt.Errorf("%w; run --clean-up again", err)
		}
		fmt.Fprintf(x.p.stdout, "destroyed %s\n", k.Label)
	}
	return os.Remove(x.journal)
}
