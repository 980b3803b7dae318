package keyx

import (
	"context"
	"fmt"

	"github.com/msl-hsm/msl-hsm/msl"
)

// A Bound exchange is offered by one entity only, since its keys belong to that entity. A
// client that may switch entities (msl.Client.EntityAuth) has one for each entity with
// pre-shared keys.
type Bound struct {
	msl.Offerer
	Identity string // of the entity
}

// Offer makes a request for the entity. It refuses any other.
func (b Bound) Offer(ctx context.Context, from msl.Requester) (msl.Offer, error) {
	if from.Identity != b.Identity {
		return nil, unable(msl.ErrKeyXIncorrectData, b.Scheme(), fmt.Sprintf("these are the keys of entity %q", b.Identity))
	}
	return b.Offerer.Offer(ctx, from)
}
