package enroll

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A ledger is the records of an authority. Devices change their own records at the same
// time, so that they share the syncs of the disk; an operator changes any, alone. Its
// exported methods only read, and are those of an [Authority], too.
type ledger struct {
	mu         sync.RWMutex // from the reading of a record to its change: shared by devices
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

// List returns all records, in the order of their IDs. Page does not take them all into
// memory at once.
func (l *ledger) List(ctx context.Context) (list []Record, err error) {
	err = l.records.View(ctx, func(tx Tx) error {
		list = nil
		return tx.All(func(r Record) error { list = append(list, r); return nil })
	})
	return list, err
}

// Each calls fn for every record, by rising ID.
func (l *ledger) Each(ctx context.Context, fn func(Record) error) error {
	return l.records.View(ctx, func(tx Tx) error { return tx.All(fn) })
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

// find returns the record of a device, or a new one. The caller holds its lock.
func (l *ledger) find(ctx context.Context, id ID, now time.Time) (r Record, err error) {
	err = l.records.View(ctx, func(tx Tx) error {
		r, err = tx.Get(id)
		return err
	})
	if errors.Is(err, ErrUnknown) {
		return Record{ID: id, Name: defaultName(id), Created: now}, nil
	}
	return r, err
}

// put writes a record. The caller holds its lock.
func (l *ledger) put(ctx context.Context, r Record) error {
	return l.records.Update(ctx, func(tx Tx) error { return tx.Put(r) })
}

// putPending writes a pending record, or returns [ErrBusy] if too many others are. The
// caller holds its lock.
func (l *ledger) putPending(ctx context.Context, r Record) error {
	return l.records.Update(ctx, func(tx Tx) error {
		old, err := tx.Get(r.ID)
		switch {
		case err == nil && old.State == Pending:
			return tx.Put(r)
		case err != nil && !errors.Is(err, ErrUnknown):
			return err
		}
		waiting, err := tx.Count(Pending)
		if err == nil && waiting >= l.maxPending {
			err = proof.Fail(ErrBusy, "%d devices wait for approval", waiting)
		}
		if err != nil {
			return err
		}
		return tx.Put(r)
	})
}

// maxRefused is how many refused devices are remembered: anybody can come with a TPM in
// software, and with another, without end.
const maxRefused = 1000

// putRefused writes the record of a refused device, in the place of the one that is refused
// for longest if there are too many. The caller holds its lock.
func (l *ledger) putRefused(ctx context.Context, r Record) error {
	return l.records.Update(ctx, func(tx Tx) error {
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
