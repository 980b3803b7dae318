package state

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// FuzzRecords reads arbitrary bytes as records: every record has only one form.
func FuzzRecords(f *testing.F) {
	f.Add(largestID{1, time.Unix(2, 0)}.encode())
	f.Add(mark{revoked: true, since: time.Unix(2, 0)}.encode())
	f.Add(encodeKeeps([]keep{{time.Hour, time.Unix(2, 0)}, {24 * time.Hour, time.Unix(3, 0)}}))
	f.Add(encodeInts(markRevoked|markProfiles|markSuffixes, 2))
	f.Add(mark{revoked: true, kept: true, since: time.Unix(2, 0)}.encode())
	f.Add(encodeInts(markRemoved|markKept, 2))
	f.Add(mark{counts: time.Unix(2, 0)}.encode())
	f.Add(mark{removed: true, since: time.Unix(2, 0), counts: time.Unix(3, 0)}.encode())
	f.Add(newestSequence{}.encode())
	f.Add(newestSequence{Sequence: msl.Sequence{Newest: 9, Asked: 6, Skipped: 2}}.encode())
	f.Add(encodeInts(9, 6, 1, 0))
	f.Add(encodeInts(9, 6, 1, 2))
	f.Add(encodeInts(9, 6, 1, maxSkipped+1))
	for _, v := range []any{pskEntity("device"), hashPassword(cheap, nil, time.Now())} {
		b, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := decodeLargestID(b); err == nil && !bytes.Equal(l.encode(), b) {
			t.Error("an id has two forms")
		}
		if q, err := decodeNewestSequence(b); err == nil && !bytes.Equal(q.encode(), b) && (len(b) != 4*8 || q.Skipped > maxSkipped) {
			t.Error("a sequence has two forms")
		}
		if m, err := decodeMark(b); err == nil && !bytes.Equal(m.encode(), b) {
			t.Error("a mark has two forms")
		}
		if all, err := decodeKeeps(b); err == nil && !bytes.Equal(encodeKeeps(all), b) {
			t.Error("keeps have two forms")
		}
		if e, err := decodeEntity("device", b, mark{}); err == nil {
			e.entity()
		}
		decodePassword(b)
	})
}

// TestSkippedForEarlier writes a record of renewals with skipped numbers as earlier versions read it,
// which know three numbers of it, and reads the one of four that was written before.
func TestSkippedForEarlier(t *testing.T) {
	want := newestSequence{msl.Sequence{Newest: 9, Asked: 6, Skipped: 2}, time.Unix(1<<31, 0)}
	n, err := decodeInts(want.encode(), 3)
	if err != nil || n[0] != 9 || n[1] != 6 {
		t.Errorf("an earlier version reads %v: %v", n, err)
	}
	for _, b := range [][]byte{want.encode(), encodeInts(9, 6, 1<<31, 2)} {
		if got, err := decodeNewestSequence(b); err != nil || got != want {
			t.Errorf("%v, %v, want %v", got, err, want)
		}
	}
	want.Skipped = maxSkipped + 1
	if got, err := decodeNewestSequence(want.encode()); err != nil || got != want {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
}
