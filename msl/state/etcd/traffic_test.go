//go:build !noetcd

package etcd

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
)

// TestExportWithTraffic writes a state to a file while a server registers devices, one after
// another, and accepts a message of each: the file has what was there at one moment, and all that
// was acknowledged before.
func TestExportWithTraffic(t *testing.T) {
	m := etcdtest.Start(t)
	_, key := keyed(t)
	c := Config{Endpoints: []string{m.URL}, Key: key}
	if _, err := Import(t.Context(), c, filled(t).Server, true, nil); err != nil {
		t.Fatal(err)
	}
	server, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	var mu sync.Mutex
	acknowledged := 0
	stop := make(chan struct{})
	var traffic sync.WaitGroup
	traffic.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			name := fmt.Sprint("new ", i)
			err := errors.Join(server.AddEntity(state.EntityRecord{Identity: name, Scheme: "NONE"}), server.AcceptID(t.Context(), name, 1, 1))
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			acknowledged = i + 1
			mu.Unlock()
		}
	})
	command, err := Administer(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer command.Close()
	for i := range 5 {
		mu.Lock()
		least := acknowledged
		mu.Unlock()
		sum, err := bolt.WriteServer(t.Context(), filepath.Join(t.TempDir(), fmt.Sprint(i)), command.Server, nil)
		entities, ids := sum.Entities-249, sum.IDs-1
		if err != nil || entities < least || ids < least || entities-ids < 0 || entities-ids > 1 {
			t.Errorf("%d were acknowledged, and there are %d entities and %d ids: %v", least, entities, ids, err)
		}
	}
	close(stop)
	traffic.Wait()
}
