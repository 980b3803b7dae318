package cli

import (
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// onState runs a verb on the state of a server, running or not.
func (p *program) onState(path string, do func(admin.Keeper) error) (err error) {
	c, file, err := p.stateFile(path)
	if err != nil {
		return err
	}
	k, err := admin.OpenKeeper(c, file)
	if err != nil {
		return err
	}
	defer exit.Closing(&err, k)
	return do(k)
}
