package state

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"

	"github.com/msl-hsm/msl-hsm/msl"
)

const maxNumber = 1 << 53

func TestAcceptID(t *testing.T) {
	s := newServer(t)
	for i, c := range []struct {
		identity   string
		serial, id int64
		want       error
	}{
		{"a", 1, -1, msl.ErrNonReplayableIDOutOfRange},
		{"a", 1, maxNumber + 1, msl.ErrNonReplayableIDOutOfRange},
		{"a", 1, 65537, msl.ErrMessageReplayedUnrecoverable},
		{"a", 1, 65536, nil},
		{"a", 1, 65536, msl.ErrMessageReplayed},
		{"a", 1, 65531, msl.ErrMessageReplayed},
		{"a", 1, 65530, msl.ErrMessageReplayedUnrecoverable},
		{"a", 1, 131073, msl.ErrMessageReplayedUnrecoverable},
		{"a", 1, 65537, nil},
		{"a", 1, 65536, msl.ErrMessageReplayed},
		{"a", 2, 1, nil}, // another token
		{"b", 1, 1, nil}, // another entity
		{"a", 2, 1, msl.ErrMessageReplayed},
		{"b", 1, 1, msl.ErrMessageReplayed},
		{"", 1, 1, nil},
		{"a\x00", 1, 1, nil},
	} {
		if err := s.AcceptID(t.Context(), c.identity, c.serial, c.id); err != c.want {
			t.Errorf("%d: AcceptID(%q, %d, %d) = %v, want %v", i, c.identity, c.serial, c.id, err, c.want)
		}
		if i%3 == 0 {
			s = reopen(t, s)
		}
	}
	if s.AcceptID(t.Context(), string(make([]byte, msl.MaxName+1)), 1, 1) == nil {
		t.Error("an identity without end is accepted")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, s.AcceptID(ctx, "c", 1, 1), context.Canceled)
}

func TestPairKeysDiffer(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range []string{"", "a", "a\x00", "\x00a", "\x00\x00\x00\x00\x00\x00\x00\x01", "ab"} {
		for _, serial := range []int64{0, 1, 97, maxNumber} {
			k, err := pairKey(name, serial)
			if err != nil || seen[string(k)] {
				t.Errorf("pairKey(%q, %d) = %x, %v", name, serial, k, err)
			}
			seen[string(k)] = true
		}
	}
}

// TestAcceptIDOnce sends one id from a thousand goroutines, among other ids.
func TestAcceptIDOnce(t *testing.T) {
	s, _ := inFile(t)
	var accepted, replayed, others atomic.Int64
	var senders sync.WaitGroup
	for i := range 1000 {
		senders.Go(func() {
			switch err := s.AcceptID(t.Context(), "a", 1, 1); {
			case err == nil:
				accepted.Add(1)
			case errors.Is(err, msl.ErrMessageReplayed):
				replayed.Add(1)
			}
			if s.AcceptID(t.Context(), fmt.Sprint("other ", i), 1, 1) == nil {
				others.Add(1)
			}
		})
	}
	senders.Wait()
	if accepted.Load() != 1 || replayed.Load() != 999 || others.Load() != 1000 {
		t.Errorf("accepted %d, replayed %d, others %d", accepted.Load(), replayed.Load(), others.Load())
	}
}

func TestRenew(t *testing.T) {
	s := newServer(t)
	for i, c := range []struct {
		serial, asked, want int64
		err                 error
	}{
		{1, 5, 6, nil},
		{1, 6, 7, nil},
		{1, 6, 8, nil}, // the answer was lost
		{1, 9, 0, msl.ErrMasterTokenSequenceNumberOutOfSync},
		{1, 5, 0, msl.ErrMasterTokenSequenceNumberOutOfSync},
		{1, 7, 9, nil}, // the first answer was not, or somebody sent a copy of the request
		{1, 6, 0, msl.ErrMasterTokenSequenceNumberOutOfSync},
		{1, 9, 10, nil},
		{1, 8, 0, msl.ErrMasterTokenSequenceNumberOutOfSync},
		{3, 5, 6, nil},
		{3, 5, 7, nil}, // by another holder of the token
		{3, 5, 8, nil},
		{3, 6, 9, nil},
		{3, 7, 0, msl.ErrMasterTokenSequenceNumberOutOfSync},
		{3, 8, 0, msl.ErrMasterTokenSequenceNumberOutOfSync},
		{3, 6, 10, nil},
		{3, 8, 0, msl.ErrMasterTokenSequenceNumberOutOfSync},
		{3, 9, 11, nil},
		{3, 10, 0, msl.ErrMasterTokenSequenceNumberOutOfSync},
		{3, 11, 12, nil},
		{3, 9, 0, msl.ErrMasterTokenSequenceNumberOutOfSync},
		{2, maxNumber, 0, nil},
		{2, maxNumber - 1, 0, msl.ErrMasterTokenSequenceNumberOutOfSync},
		{2, 1, 0, msl.ErrMasterTokenSequenceNumberOutOfSync},
		{2, maxNumber, 1, nil},
		{2, 0, 2, nil},
		{2, maxNumber, 0, msl.ErrMasterTokenSequenceNumberOutOfSync},
		{2, 1, 0, msl.ErrMasterTokenSequenceNumberOutOfSync},
		{2, 2, 3, nil},
	} {
		s = reopen(t, s)
		err := s.Renewable(t.Context(), "a", c.serial, c.asked)
		if err != c.err {
			t.Errorf("%d: Renewable: %v, want %v", i, err, c.err)
		}
		got, err := s.Renew(t.Context(), "a", c.serial, c.asked)
		if got != c.want || err != c.err {
			t.Errorf("%d: Renew(%d) = %d, %v, want %d, %v", i, c.asked, got, err, c.want, c.err)
		}
	}
	if err := s.Renewable(t.Context(), "unknown", 1, 42); err != nil {
		t.Errorf("Renewable without a record: %v", err)
	}
}

// TestBehind renews tokens, and shows them to an older state: it reports that once, and of no
// token that it knows, also if the answer to a renewal was lost.
func TestBehind(t *testing.T) {
	var told []string
	tell := func(identity string) { told = append(told, identity) }
	for name, c := range map[string]struct {
		recorded, shown []int64 // numbers in requests for renewals
		want            int
	}{
		"in order":             {[]int64{0, 1, 2}, []int64{3}, 0},
		"the answer was lost":  {[]int64{0, 1}, []int64{1, 1, 2}, 0},
		"an old one":           {[]int64{0, 1, 2, 3}, []int64{0}, 0},
		"never renewed":        {nil, []int64{0}, 0},
		"renewed once more":    {[]int64{0, 1}, []int64{3, 3}, 1},
		"nothing was recorded": {nil, []int64{1, 2}, 1},
	} {
		s := newServer(t)
		s.WhenBehind(tell)
		told = nil
		for _, n := range c.recorded {
			if _, err := s.Renew(t.Context(), "a", 1, n); err != nil {
				t.Fatal(name, err)
			}
		}
		for _, n := range c.shown {
			_ = s.Renewable(t.Context(), "a", 1, n)
			_, _ = s.Renew(t.Context(), "a", 1, n)
		}
		if len(told) != c.want || c.want > 0 && told[0] != "a" {
			t.Errorf("%s: told of %q, want %d", name, told, c.want)
		}
	}
}

func TestRenewConcurrently(t *testing.T) {
	s, _ := inFile(t)
	if _, err := s.Renew(t.Context(), "a", 1, 0); err != nil {
		t.Fatal(err)
	}
	given := make(chan int64, 100)
	var clients sync.WaitGroup
	for range 100 {
		clients.Go(func() {
			n, err := s.Renew(t.Context(), "a", 1, 1) // all with the same token
			if err != nil {
				t.Error(err)
			}
			given <- n
		})
	}
	clients.Wait()
	close(given)
	seen := map[int64]bool{}
	for n := range given {
		if seen[n] {
			t.Errorf("%d was given twice", n)
		}
		seen[n] = true
	}
}

func (s *Server) keep(t *testing.T, bucket, identity string, payload []byte) {
	t.Helper()
	key, err := pairKey(identity, 1)
	if err == nil {
		err = s.store.Update(t.Context(), func(tx kv.Tx) error { return tx.Put(bucket, key, payload) })
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestPrune(t *testing.T) {
	s := newServer(t)
	now := time.Now()
	old := now.Add(-48 * time.Hour)
	sequence := msl.Sequence{Newest: 6, Asked: 5}
	s.keep(t, tableIDs, "old", largestID{9, old}.encode())
	s.keep(t, tableSequences, "old", newestSequence{sequence, old}.encode())
	s.keep(t, tableSequences, "old sequence", newestSequence{sequence, old}.encode())
	s.keep(t, tableIDs, "renewed", largestID{9, old}.encode())
	s.keep(t, tableSequences, "renewed", newestSequence{sequence, now}.encode())
	s.keep(t, tableIDs, "used", largestID{9, now}.encode())
	s.keep(t, tableSequences, "used", newestSequence{sequence, old}.encode())
	if n, err := s.Prune(now.Add(-24 * time.Hour)); n != 2 || err != nil {
		t.Errorf("Prune = %d, %v", n, err)
	}
	s = reopen(t, s)
	wantErr(t, s.AcceptID(t.Context(), "old", 1, 9), nil)
	wantErr(t, s.AcceptID(t.Context(), "renewed", 1, 9), msl.ErrMessageReplayed)
	wantErr(t, s.AcceptID(t.Context(), "used", 1, 9), msl.ErrMessageReplayed)
	wantErr(t, s.Renewable(t.Context(), "old sequence", 1, 1), nil)
	wantErr(t, s.Renewable(t.Context(), "used", 1, 1), msl.ErrMasterTokenSequenceNumberOutOfSync)
}

func TestPruneMany(t *testing.T) {
	s := newServer(t)
	for i := range 3*pruneAtATime + 7 {
		touched := time.Unix(int64(i%2), 0)
		s.keep(t, tableIDs, fmt.Sprint("a", i), largestID{1, touched}.encode())
		s.keep(t, tableSequences, fmt.Sprint("a", i), newestSequence{msl.Sequence{Newest: 1}, touched}.encode())
	}
	if n, err := s.Prune(time.Unix(1, 0)); n != (3*pruneAtATime+8)/2 || err != nil {
		t.Errorf("Prune = %d, %v", n, err)
	}
	if n, err := s.Prune(time.Unix(2, 0)); n != (3*pruneAtATime+7)/2 || err != nil {
		t.Errorf("Prune = %d, %v", n, err)
	}
}

func BenchmarkAcceptID(b *testing.B) {
	s, _ := inFile(b)
	var clients atomic.Int64
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		serial := clients.Add(1)
		for id := int64(1); pb.Next(); id++ {
			if err := s.AcceptID(context.Background(), "a", serial, id); err != nil {
				b.Fatal(err)
			}
		}
	})
}
