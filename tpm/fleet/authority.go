package fleet

import (
	"context"
	"errors"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// An Authority enrolls devices and registers them as entities of an MSL server. It is
// safe for concurrent use. Records in a file belong to it exclusively; those in etcd are
// shared with other servers, which must also share the state.
type Authority struct {
	*enroll.Authority
	// Written, if not nil, is called with each device record that was written. It must be
	// set before the authority is used, and must not block.
	Written func(enroll.Record)

	state Registry
}

// A Registry is what an authority changes in the state of a server: a state.Server, or one
// in a file or in etcd.
type Registry interface {
	msl.Directory
	Record(ctx context.Context, identity string) (state.EntityRecord, error)
	ReplaceEntity(state.EntityRecord) error
	RemoveEntity(identity string) error
	WithdrawEntity(identity string) error
	RestoreEntities(identities ...string) (kept string, err error)
}

// NewAuthority makes an authority that registers devices in the state of a server, with
// keystore.KeyID as the id of their keys. It sets Register, Withdraw and Revoked of the
// settings itself. The caller must close the state and the records when the authority is
// no longer used.
//
// The errors are those of [enroll.NewAuthority].
func NewAuthority(state Registry, settings enroll.Config) (*Authority, error) {
	if state == nil || settings.Records == nil {
		return nil, errors.New("fleet: an authority needs the state of a server, and records")
	}
	a := &Authority{state: state}
	settings.Register, settings.Withdraw, settings.Revoked = a.register, a.withdraw, a.revoked
	settings.Records = watchedRecords{settings.Records, a.written}
	var err error
	if a.Authority, err = enroll.NewAuthority(settings); err != nil {
		return nil, err
	}
	return a, nil
}

// written reports a record that was written.
func (a *Authority) written(r enroll.Record) {
	if a.Written != nil {
		a.Written(r)
	}
}

// watchedRecords are records that report each record written.
type watchedRecords struct {
	enroll.Records
	written func(enroll.Record)
}

// Update implements enroll.Records.
func (w watchedRecords) Update(ctx context.Context, fn func(enroll.Tx) error) error {
	var put []enroll.Record
	err := w.Records.Update(ctx, func(tx enroll.Tx) error {
		put = nil // fn may run again
		return fn(watchedTx{tx, &put})
	})
	if err != nil {
		return err
	}
	for _, r := range put {
		w.written(r)
	}
	return nil
}

type watchedTx struct {
	enroll.Tx
	put *[]enroll.Record
}

// Put implements enroll.Tx.
func (w watchedTx) Put(r enroll.Record) error {
	*w.put = append(*w.put, r)
	return w.Tx.Put(r)
}
