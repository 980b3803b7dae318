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
		if q, err := decodeNewestSequence(b); err == nil && !bytes.Equal(q.encode(), b) {
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
