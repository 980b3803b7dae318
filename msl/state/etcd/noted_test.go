//go:build !noetcd

package etcd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
	"github.com/msl-hsm/msl-hsm/msl/state"
)

// TestNoted has a command end the tokens of a name as of a time that is later than the clocks of
// servers, which the servers noted in what the key authenticates.
func TestNoted(t *testing.T) {
	m := etcdtest.Start(t)
	_, key := keyed(t)
	c := Config{Endpoints: []string{m.URL}, Key: key}
	if err := Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	server, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	began := time.Now()
	server.StartPruning(state.Pruning{Keep: time.Hour})
	register(t, server)
	command, err := Administer(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer command.Close()
	for end := began.Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err := errors.Join(command.RemoveEntity("device"), command.Verify(t.Context())); err != nil {
			t.Fatal(err)
		}
		entity, _, err := command.CountSince(t.Context(), "device", "")
		if ahead := time.Until(entity); err != nil || ahead > 4*time.Minute {
			if err != nil || ahead > 7*time.Minute {
				t.Errorf("tokens count from %v on: %v", ahead, err)
			}
			return
		}
		if time.Now().After(end) {
			t.Fatal("the server did not note the time")
		}
		if err := command.AddEntity(state.EntityRecord{Identity: "device", Scheme: "X509"}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestImportClockBehind imports a state by a clock that is behind what is in it. That is refused
// before anything is written, also after an import that was interrupted.
func TestImportClockBehind(t *testing.T) {
	m := etcdtest.Start(t)
	_, key := keyed(t)
	for i, ahead := range []time.Duration{time.Hour, 24 * time.Hour, 365 * 24 * time.Hour} {
		c := Config{Endpoints: []string{m.URL}, Key: key, Prefix: fmt.Sprint("state", i)}
		from := usedAt(t, time.Now().Add(ahead))
		if _, err := Import(t.Context(), c, from, false, nil); !errors.Is(err, state.ErrClockBehind) {
			t.Errorf("%v: %v, want ErrClockBehind", ahead, err)
		}
		if _, err := Administer(t.Context(), c); !errors.Is(err, ErrEmpty) {
			t.Errorf("%v: %v, want ErrEmpty", ahead, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := Import(ctx, c, filled(t).Server, true, func(int) { cancel() }); err == nil {
			t.Fatal("it was not interrupted")
		}
		if _, err := Import(t.Context(), c, from, false, nil); !errors.Is(err, state.ErrClockBehind) {
			t.Errorf("%v, after an interruption: %v, want ErrClockBehind", ahead, err)
		}
	}
}

// usedAt is a state that a token used at a time.
func usedAt(t *testing.T, at time.Time) *state.Server {
	t.Helper()
	store := &kvtest.Memory{}
	s, err := state.NewServer(store)
	if err == nil {
		err = s.AcceptID(t.Context(), "device", 1, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
	err = store.Update(t.Context(), func(tx kv.Tx) error {
		page, err := tx.Range("ids", nil, nil, 1)
		if err != nil {
			return err
		}
		value := binary.BigEndian.AppendUint64(bytes.Clone(page[0].Value[:8]), uint64(at.Unix()))
		return tx.Put("ids", page[0].Key, value)
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
