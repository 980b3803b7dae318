package state

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A Directory holds the entities that a server knows. It implements msl.Directory.
type Directory struct {
	records
	cache    entityCache
	entities roster
}

// An EntityRecord is an entity as registered and listed.
type EntityRecord struct {
	Identity    string         `json:"identity"`
	Scheme      string         `json:"scheme,omitempty"`      // the only entity scheme it may use
	KeyID       string         `json:"keyid,omitempty"`       // RSA, ECC: the id of its public key
	PublicKey   []byte         `json:"publickey,omitempty"`   // PKIX, DER
	Certificate []byte         `json:"certificate,omitempty"` // X.509, DER; for display only
	PSK         *msl.SealedPSK `json:"psk,omitempty"`

	// The schemes the entity may use: nil means all, and empty means none.
	KeyExchanges []string `json:"keyexchanges,omitzero"`
	UserSchemes  []string `json:"userschemes,omitzero"`

	Created time.Time `json:"created,omitzero"` // AddEntity fills it in
	// The remaining fields are for lists. An entity that was removed, or revoked
	// without ever having been registered, has no other fields.
	Revoked bool      `json:"revoked,omitempty"`
	Removed bool      `json:"removed,omitempty"`
	Since   time.Time `json:"since,omitzero"` // when it was revoked or removed
}

// check rejects a record that could not open any message.
func (e EntityRecord) check() error {
	if err := checkName("entity", e.Identity); err != nil {
		return err
	}
	public, err := e.publicKey()
	if err != nil {
		return fmt.Errorf("state: the public key of entity %q is not PKIX DER: %w", e.Identity, err)
	}
	if len(e.Certificate) > 0 {
		if _, err := x509.ParseCertificate(e.Certificate); err != nil {
			return fmt.Errorf("state: the certificate of entity %q is not X.509 DER: %w", e.Identity, err)
		}
	}
	if err := checkFamily(e.Identity, e.Scheme); err != nil {
		return err
	}
	return e.checkScheme(public)
}

func (e EntityRecord) checkScheme(public any) error {
	_, isRSA := public.(*rsa.PublicKey)
	_, isECC := public.(*ecdsa.PublicKey)
	switch {
	case e.Scheme == "":
		return fmt.Errorf("state: entity %q needs an entity scheme", e.Identity)
	case (e.Scheme == "PSK" || e.Scheme == "PSK_PROFILE") && e.PSK == nil:
		return fmt.Errorf("state: entity %q needs a pre-shared key set for the scheme %s", e.Identity, e.Scheme)
	case e.PSK != nil && (len(e.PSK.Encryption) == 0 || len(e.PSK.MAC) == 0 || len(e.PSK.Wrapping) == 0):
		return fmt.Errorf("state: the pre-shared key set of entity %q is not complete", e.Identity)
	case e.Scheme == "RSA" && (!isRSA || e.KeyID == ""):
		return fmt.Errorf("state: entity %q needs an RSA public key and its id for the scheme RSA", e.Identity)
	case e.Scheme == "ECC" && (!isECC || e.KeyID == ""):
		return fmt.Errorf("state: entity %q needs an elliptic curve public key and its id for the scheme ECC", e.Identity)
	}
	return nil
}

func (e EntityRecord) publicKey() (any, error) {
	if len(e.PublicKey) == 0 {
		return nil, nil
	}
	return x509.ParsePKIXPublicKey(e.PublicKey)
}

// entity returns the record in the form used by the protocol.
func (e EntityRecord) entity() (*msl.Entity, error) {
	public, err := e.publicKey()
	if err != nil {
		return nil, fmt.Errorf("%w: a public key does not parse", ErrDamaged)
	}
	return &msl.Entity{
		Identity:     e.Identity,
		Scheme:       e.Scheme,
		Revoked:      e.Revoked,
		KeyID:        e.KeyID,
		PublicKey:    public,
		PSK:          e.PSK,
		KeyExchanges: e.KeyExchanges,
		UserSchemes:  e.UserSchemes,
	}, nil
}

func decodeEntity(identity string, payload []byte, m mark) (e EntityRecord, err error) {
	err = kv.DecodeJSON(payload, &e)
	if msl.CanonicalName(e.Identity) == msl.CanonicalName(identity) {
		identity = e.Identity // its keys were sealed for it
	}
	e.Identity, e.Revoked, e.Removed, e.Since = identity, m.revoked, false, m.since
	return e, err
}

// AddEntity registers an entity. A removed entity can be added again, but its earlier
// tokens stay invalid; within the second of the removal, AddEntity waits for the next
// second. A revoked entity is [ErrRevoked], a registered one [ErrExists]. The error is
// also [ErrExists] if its identities could be mistaken for those of another entity:
// with the scheme PSK_PROFILE, "a" and "a-b" conflict, and with NONE_SUFFIXED, "a" and
// "a.b".
func (d *Directory) AddEntity(e EntityRecord) error {
	payload, err := e.encode()
	if err != nil {
		return err
	}
	defer d.cache.drop(e.Identity)
	return d.returning("add", d.entities, e.Identity, func(tx kv.Tx) error {
		if err := unambiguous(tx, e); err != nil {
			return err
		}
		key, err := d.entities.key(tx, e.Identity)
		if err != nil {
			return err
		}
		return entityRoll.add(tx, key, payload)
	})
}

// ReplaceEntity registers an entity and replaces any registered one of the same name,
// whose tokens stay valid. The errors are those of AddEntity.
func (d *Directory) ReplaceEntity(e EntityRecord) error {
	payload, err := e.encode()
	if err != nil {
		return err
	}
	return d.changeEntity("replace", e.Identity, func(tx kv.Tx) error {
		key, err := d.entities.key(tx, e.Identity)
		if err != nil {
			return err
		}
		if err := tx.Delete(tableEntities, []byte(key)); err != nil {
			return err
		}
		if err := unambiguous(tx, e); err != nil {
			return err
		}
		return entityRoll.replace(tx, key, payload)
	})
}

// encode checks a record before registration, and sets its date.
func (e EntityRecord) encode() ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	if e.Created.IsZero() {
		e.Created = time.Now().UTC().Truncate(time.Second)
	}
	e.Revoked, e.Removed, e.Since = false, false, time.Time{}
	payload, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("state: add entity: %w", err)
	}
	return payload, nil
}

// RemoveEntity removes an entity and leaves a mark, so that its master tokens are
// refused. An entity that is not registered is [ErrUnknown].
func (d *Directory) RemoveEntity(identity string) error {
	return d.changeEntityAt("remove", identity, entityRoll.drop)
}

func (d *Directory) changeEntityAt(op, identity string, do func(tx kv.Tx, key string, at time.Time) error) error {
	err := d.changeAt(op, d.entities, identity, do)
	d.cache.drop(identity)
	return err
}

func (d *Directory) changeEntity(op, identity string, fn func(kv.Tx) error) error {
	err := d.update(context.Background(), op, fn)
	d.cache.drop(identity)
	return err
}

// Entities lists the registered entities by identity, followed by identities that are
// only marked as revoked or removed.
func (d *Directory) Entities() ([]EntityRecord, error) {
	var list []EntityRecord
	err := d.recall(context.Background(), "list entities", func(tx kv.Reader) error {
		list = nil
		return entityRoll.each(tx, func(identity string, payload []byte, m mark) error {
			e, err := decodeEntity(identity, payload, m)
			list = append(list, e)
			return err
		}, func(identity string, m mark) {
			list = append(list, EntityRecord{Identity: identity, Revoked: m.revoked, Removed: m.removed, Since: m.since})
		})
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// stored finds the key and the payload of a registered entity.
func (d *Directory) stored(tx kv.Reader, identity string) (key string, payload []byte, err error) {
	if key, err = d.entities.key(tx, identity); err != nil {
		return "", nil, err
	}
	payload, err = tx.Get(tableEntities, []byte(key))
	if err == nil && payload == nil {
		err = entityRoll.unknown(identity)
	}
	return key, payload, err
}

// Record returns the record of a registered entity, as [Directory.Entities] lists it, or
// [ErrUnknown].
func (d *Directory) Record(ctx context.Context, identity string) (e EntityRecord, err error) {
	err = d.view(ctx, "find entity", func(tx kv.Reader) error {
		key, payload, err := d.stored(tx, identity)
		if err != nil {
			return err
		}
		m, err := entityRoll.mark(tx, key)
		if err != nil {
			return err
		}
		e, err = decodeEntity(key, payload, m)
		return err
	})
	return e, err
}

// Entity implements msl.Directory. The result is shared and must not be modified. A
// revoked identity that is not registered is returned as an entity with no scheme. An
// unregistered identity that is a profile of a PSK_PROFILE key set, or a suffix of a
// NONE_SUFFIXED root, is found as such.
func (d *Directory) Entity(ctx context.Context, identity string) (*msl.Entity, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	old, changes := d.cache.find(identity)
	if _, shared := d.store.(kv.Shared); old != nil && !shared {
		return old.entity, nil
	}
	var found *parsedEntity
	err := d.recall(ctx, "find entity", func(tx kv.Reader) (err error) {
		if found, err = d.loadEntity(tx, identity, old); errors.Is(err, keystore.ErrNotFound) {
			found, err = d.loadFamily(tx, identity)
		}
		return err
	})
	if errors.Is(err, keystore.ErrNotFound) {
		// The identity may come from a stranger, so it is kept out of logs.
		return nil, fmt.Errorf("state: no such entity: %w", keystore.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if found != old && d.entities.plain(found.entity.Identity) {
		d.cache.keep(found, changes)
	}
	return found.entity, nil
}

// loadEntity returns old, which may be nil, if it is still the current record.
func (d *Directory) loadEntity(tx kv.Reader, identity string, old *parsedEntity) (*parsedEntity, error) {
	key, apart, err := d.entities.find(tx, identity)
	if err != nil {
		return nil, err
	}
	unregistered := &parsedEntity{entity: &msl.Entity{Identity: identity, Revoked: true}}
	if apart {
		return unregistered, nil
	}
	m, err := entityRoll.mark(tx, key)
	if err != nil {
		return nil, err
	}
	payload, err := tx.Get(tableEntities, []byte(key))
	switch {
	case err != nil:
		return nil, err
	case payload == nil && m.revoked:
		return unregistered, nil
	case payload == nil:
		return nil, keystore.ErrNotFound
	case old != nil && old.mark == m && bytes.Equal(old.payload, payload):
		return old, nil
	}
	return parseEntity(key, payload, m)
}

// A parsedEntity is an entity with the records that it was made from.
type parsedEntity struct {
	entity  *msl.Entity
	payload []byte // nil if it is not registered
	mark    mark
}

func parseEntity(key string, payload []byte, m mark) (*parsedEntity, error) {
	record, err := decodeEntity(key, payload, m)
	if err != nil {
		return nil, err
	}
	e, err := record.entity()
	return &parsedEntity{e, bytes.Clone(payload), m}, err
}

// maxCachedEntities bounds the memory for parsed entities, at about 2 KiB each.
const maxCachedEntities = 4096

// An entityCache avoids parsing an entity for every message, and reading it if no other
// process can change it.
type entityCache struct {
	mu      sync.RWMutex
	parsed  map[string]*parsedEntity
	changes int
}

// find also returns the number of changes so far, to be passed to keep.
func (c *entityCache) find(identity string) (*parsedEntity, int) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.parsed[msl.CanonicalName(identity)], c.changes
}

// keep caches an entity that was read after the given number of changes. If there were
// more since, it may be outdated and is not cached.
func (c *entityCache) keep(e *parsedEntity, changes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if changes != c.changes {
		return
	}
	if c.parsed == nil || len(c.parsed) >= maxCachedEntities {
		c.parsed = map[string]*parsedEntity{}
	}
	c.parsed[msl.CanonicalName(e.entity.Identity)] = e
}

func (c *entityCache) drop(identity string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.parsed, msl.CanonicalName(identity))
	c.changes++
}
