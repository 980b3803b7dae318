package state

import (
	"bytes"
	"context"
	"encoding/json"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/msl"
)

// Reseal replaces the pre-shared keys of an entity with the same keys, sealed in another
// way. Tokens and marks stay as they are. If the entity now has keys other than old, the
// error is [ErrConflict]; if it is not registered, [ErrUnknown].
func (d *Directory) Reseal(ctx context.Context, identity string, old, again msl.SealedPSK) error {
	defer d.cache.drop(identity)
	return d.update(ctx, "seal keys again", func(tx kv.Tx) error {
		key, payload, err := d.stored(tx, identity)
		if err != nil {
			return err
		}
		var e EntityRecord
		if err := kv.DecodeJSON(payload, &e); err != nil {
			return err
		}
		if e.PSK == nil || !samePSK(*e.PSK, old) {
			return ErrConflict
		}
		e.PSK = &again
		if payload, err = json.Marshal(e); err != nil {
			return err
		}
		return tx.Put(tableEntities, []byte(key), payload)
	})
}

func samePSK(a, b msl.SealedPSK) bool {
	return bytes.Equal(a.Encryption, b.Encryption) && bytes.Equal(a.MAC, b.MAC) && bytes.Equal(a.Wrapping, b.Wrapping)
}
