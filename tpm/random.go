package tpm

import (
	"encoding/binary"
	"fmt"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// maxRandom is how many bytes one command asks for: the size of the smallest digest,
// which every TPM returns in one command (TPM 2.0 Library, Part 3, clause 16.1).
const maxRandom = 32

// A generator is the random number generator of the TPM.
type generator struct{ storage *storage }

// Random fills p with random bytes from the TPM (TPM2_GetRandom), encrypted on the bus.
// If a TPM returns fewer bytes than requested, it is asked again; none at all is an
// error.
func (g generator) Random(p []byte) error {
	for len(p) > 0 {
		n, err := g.some(p)
		if err != nil {
			return fmt.Errorf("tpm: random bytes: %w", err)
		}
		p = p[n:]
	}
	return nil
}

// some runs one command.
func (g generator) some(p []byte) (n int, err error) {
	want := min(len(p), maxRandom)
	err = g.storage.use(g.storage.key, g.storage.open, func(l loadedKey) error {
		params := binary.BigEndian.AppendUint16(nil, uint16(want))
		r, err := l.tpm.run(command{code: ccGetRandom, session: l.session, params: params, secretOut: true})
		if err != nil {
			return err
		}
		got, _, ok := cut16(r.params)
		if !ok || len(got) > want {
			return fmt.Errorf("%s: %w", commandName(ccGetRandom), errAnswer())
		}
		if len(got) == 0 {
			return fmt.Errorf("%s: the TPM returned none: %w", commandName(ccGetRandom), keystore.ErrUnavailable)
		}
		n = copy(p, got)
		clear(got)
		return nil
	})
	return n, err
}
