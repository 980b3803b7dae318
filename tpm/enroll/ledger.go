package enroll

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A ledger is the records of an authority. Devices change their own records concurrently,
// so that they share the syncs of the disk; an operator changes any record, exclusively.
// Records shared by several servers may be changed by another one in the meantime, which
// is detected when a record is written. Its exported methods only read, and are also
// those of an [Authority].
type ledger struct {
	mu         sync.RWMutex // from reading a record to changing it: shared by devices
	devices    [64]sync.Mutex
	records    Records
	maxPending int
}

// Get returns the record of a device, or [ErrUnknown].
func (l *ledger) Get(ctx context.Context, id ID) (r Record, err error) {
	err = l.records.View(ctx, func(tx Tx) error {
		r, err = tx.Get(id)
		return err
	})
	return r, err
}

// Standing returns since when tokens of a device's name count; the zero value if no
// device has it. For records shared by several servers it uses the copy in memory.
func (l *ledger) Standing(ctx context.Context, name string) (s Standing, err error) {
	err = l.records.Recall(ctx, func(tx Tx) error {
		s, err = tx.Standing(name)
		return err
	})
	return s, err
}

// Named returns the record of the device with a name, or [ErrUnknown].
func (l *ledger) Named(ctx context.Context, name string) (r Record, err error) {
	err = l.records.View(ctx, func(tx Tx) error {
		id, err := tx.ByName(name)
		if err == nil {
			r, err = tx.Get(id)
		}
		return err
	})
	return r, err
}

// List returns all records, in the order of their IDs. Page does not load them all into
// memory.
func (l *ledger) List(ctx context.Context) (list []Record, err error) {
	err = l.records.View(ctx, func(tx Tx) error {
		list = nil
		return tx.All(func(r Record) error { list = append(list, r); return nil })
	})
	return list, err
}

// enter locks the record of a device, until leave is called.
func (l *ledger) enter(id ID) (leave func()) {
	own := &l.devices[int(id[0])%len(l.devices)]
	l.mu.RLock()
	own.Lock()
	return func() {
		own.Unlock()
		l.mu.RUnlock()
	}
}

// errMoved: another server changed the record in the meantime. Within a server, the locks
// rule that out.
var errMoved = errors.New("enroll: another server changed the record meanwhile")

// A version distinguishes a record from its earlier and later contents. The zero value
// means that there is no record.
type version [sha256.Size]byte

// read returns a record and its version, or [ErrUnknown].
func read(tx Tx, id ID) (r Record, v version, err error) {
	if r, err = tx.Get(id); err != nil {
		return r, v, err
	}
	v, err = r.version()
	return r, v, err
}

func (r *Record) version() (version, error) {
	text, err := json.Marshal(r)
	return sha256.Sum256(text), err
}

// find returns the record of a device and its version, or a new one. The caller must hold
// its lock.
func (l *ledger) find(ctx context.Context, id ID, now time.Time) (r Record, v version, err error) {
	err = l.records.View(ctx, func(tx Tx) error {
		r, v, err = read(tx, id)
		return err
	})
	if errors.Is(err, ErrUnknown) {
		return Record{ID: id, Name: defaultName(id), Created: now}, version{}, nil
	}
	return r, v, err
}

// replace calls fn to replace the record of a device; fn gets the stored record. If its
// version is not was, the error is [errMoved]. The caller must hold its lock.
func (l *ledger) replace(ctx context.Context, id ID, was version, fn func(tx Tx, old Record) error) error {
	return l.records.Update(ctx, func(tx Tx) error {
		old, now, err := read(tx, id)
		switch {
		case err != nil && !errors.Is(err, ErrUnknown):
			return err
		case now != was:
			return errMoved
		}
		return fn(tx, old)
	})
}

// put replaces the record of version was.
func (l *ledger) put(ctx context.Context, was version, r Record) error {
	return l.replace(ctx, r.ID, was, func(tx Tx, _ Record) error { return tx.Put(r) })
}

// putPending replaces the record of version was with a pending one, or returns [ErrBusy]
// if too many others are pending.
func (l *ledger) putPending(ctx context.Context, was version, r Record) error {
	return l.replace(ctx, r.ID, was, func(tx Tx, old Record) error {
		if old.State == Pending {
			return tx.Put(r)
		}
		waiting, err := tx.Count(Pending)
		if err == nil && waiting >= l.maxPending {
			err = proof.Fail(ErrBusy, "%d devices are waiting for approval", waiting)
		}
		if err != nil {
			return err
		}
		return tx.Put(r)
	})
}

// maxRefused is how many refused devices are remembered: anyone can come with any number
// of software TPMs.
const maxRefused = 1000

// putRefused writes the record of a refused device, and removes the one refused longest
// ago if there are too many.
func (l *ledger) putRefused(ctx context.Context, was version, r Record) error {
	return l.replace(ctx, r.ID, was, func(tx Tx, _ Record) error {
		if err := tx.Put(r); err != nil {
			return err
		}
		n, err := tx.Count(Refused)
		if err != nil || n <= maxRefused {
			return err
		}
		oldest, err := tx.Page(Query{State: Refused, Limit: 1})
		for _, r := range oldest.Records {
			err = errors.Join(err, tx.Delete(r.ID))
		}
		return err
	})
}
