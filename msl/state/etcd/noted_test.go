//go:build !noetcd

package etcd

import (
	"errors"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
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
