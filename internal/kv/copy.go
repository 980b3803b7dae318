package kv

import (
	"bytes"
	"context"
)

// A Writer writes many records to a store, as many per transaction as every store
// accepts.
type Writer struct {
	To Store
	// Progress is called with the number of records written so far. It may be nil.
	Progress func(records int)

	pending []tablePair
	bytes   int
	done    int
}

type tablePair struct {
	table string
	Pair
}

// Add writes a record, at the latest when Flush is called. It retains neither slice.
func (w *Writer) Add(ctx context.Context, table string, p Pair) error {
	size := len(p.Key) + len(p.Value)
	if len(w.pending) == MaxChanges || w.bytes+size > MaxValue {
		if err := w.Flush(ctx); err != nil {
			return err
		}
	}
	w.pending = append(w.pending, tablePair{table, Pair{Key: bytes.Clone(p.Key), Value: bytes.Clone(p.Value)}})
	w.bytes += size
	return nil
}

// Flush writes the rest.
func (w *Writer) Flush(ctx context.Context) error {
	err := w.To.Update(ctx, func(tx Tx) error {
		for _, p := range w.pending {
			if err := tx.Put(p.table, p.Key, p.Value); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	w.done += len(w.pending)
	w.pending, w.bytes = w.pending[:0], 0
	if w.Progress != nil {
		w.Progress(w.done)
	}
	return nil
}
