package etcd

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// windowTable has one record. It is not authenticated: anyone who writes it can make
// devices wait, or let more of them through.
const windowTable = "window"

// A bucket is what is left of a window at some time.
type bucket struct {
	left float64
	at   time.Time
}

// skew is how far ahead another server's clock may plausibly be.
const skew = 5 * time.Second

// fill adds what has accumulated since then. Server clocks differ: one that is behind
// adds nothing.
func (b bucket) fill(perSecond float64, now time.Time) bucket {
	full := 2*perSecond + 1
	since := now.Sub(b.at)
	if b.at.IsZero() || since < -skew {
		return bucket{full, now}
	}
	if since <= 0 {
		return b
	}
	return bucket{min(full, b.left+perSecond*since.Seconds()), now}
}

func (b bucket) encode() []byte {
	out := binary.BigEndian.AppendUint64(nil, uint64(b.left*1e6))
	return binary.BigEndian.AppendUint64(out, uint64(b.at.UnixNano()))
}

// decodeBucket returns a full bucket for data that it does not understand.
func decodeBucket(b []byte) bucket {
	if len(b) != 16 {
		return bucket{}
	}
	return bucket{float64(binary.BigEndian.Uint64(b)) / 1e6, time.Unix(0, int64(binary.BigEndian.Uint64(b[8:])))}
}

// Take implements enroll.Window, for all servers with these records.
func (r *Records) Take(ctx context.Context, perSecond float64, want int) (taken int, err error) {
	err = r.store.Update(ctx, func(tx kv.Tx) error {
		stored, err := tx.Get(windowTable, []byte(windowTable))
		if err != nil {
			return err
		}
		b := decodeBucket(stored).fill(perSecond, time.Now())
		if taken = min(want, int(b.left)); taken <= 0 {
			taken = 0
			return nil
		}
		b.left -= float64(taken)
		return tx.Put(windowTable, []byte(windowTable), b.encode())
	})
	return taken, err
}
