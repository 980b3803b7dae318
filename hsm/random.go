package hsm

// maxRandom is how many bytes one call asks for: some modules refuse more.
const maxRandom = 1024

// A generator is the random number generator of the token.
type generator struct{ recovery *recovery }

// Random fills p with random bytes of the token (C_GenerateRandom). If the token has no
// generator (CKR_RANDOM_NO_RNG) the error is errors.ErrUnsupported. A module that answers CKR_OK
// and writes fewer bytes than requested is not detected here, unless it writes none of 16 or
// more, but by [github.com/msl-hsm/msl-hsm/keystore/mixed].
func (g generator) Random(p []byte) error {
	for len(p) > 0 {
		piece := p[:min(len(p), maxRandom)]
		err := g.recovery.attempt(func() error {
			c := g.recovery.connection
			return c.on(c.sessions, 0, func(session uint, _ uint64) error {
				clear(piece)
				err := c.random(session, piece)
				if len(piece) >= 16 {
					err = wrote("C_GenerateRandom", piece, len(piece), err)
				}
				return err
			})
		}, nil)
		if err != nil {
			return g.recovery.ours(err)
		}
		p = p[len(piece):]
	}
	return nil
}
