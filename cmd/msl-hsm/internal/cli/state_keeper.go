package cli

import (
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// onState runs a verb on the state of a server, running or not.
func (p *program) onState(path string, do func(admin.Keeper) error) (err error) {
	c, err := p.configure()
	if err != nil {
		return err
	}
	if err := admin.FindState(c, path); err != nil {
		return err
	}
	own := admin.KeysOf(c)
	defer exit.Closing(&err, own)
	k, err := own.Keeper()
	if err != nil {
		return err
	}
	defer exit.Closing(&err, k)
	return warned(p, own, do(k))
}
