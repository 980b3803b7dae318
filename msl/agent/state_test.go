package agent

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// A memory keeps the record of a client.
type memory struct {
	mu     sync.Mutex
	record msl.ClientRecord
	ids    int64
}

func (m *memory) Load(context.Context) (msl.ClientRecord, error) { return m.record, nil }

func (m *memory) Save(_ context.Context, r msl.ClientRecord) error {
	m.record = r
	return nil
}

func (m *memory) NextID(context.Context, int64) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ids++
	return m.ids, nil
}

// TestWatchState keeps the same token twice, none, and another one.
func TestWatchState(t *testing.T) {
	var renewed []string
	s := WatchState(&memory{record: msl.ClientRecord{MasterToken: []byte("old")}}, func(r msl.ClientRecord) { renewed = append(renewed, string(r.MasterToken)) })
	if r, err := s.Load(t.Context()); err != nil || string(r.MasterToken) != "old" {
		t.Fatal(r, err)
	}
	for _, token := range []string{"old", "new", "new", "", "third"} {
		r := msl.ClientRecord{MasterToken: []byte(token)}
		if token == "" {
			r.MasterToken = nil
		}
		if err := s.Save(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(renewed, " "); got != "new third" {
		t.Errorf("told of %q", got)
	}
}
