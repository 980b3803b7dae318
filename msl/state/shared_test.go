package state

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
	"github.com/msl-hsm/msl-hsm/msl"
)

// TestShared has two servers share a state: what one accepted is a replay at the other,
// and what one revoked is refused by both.
func TestShared(t *testing.T) {
	m := etcdtest.Start(t)
	var servers []*Server
	for range 2 {
		d, err := etcdkv.Open(t.Context(), etcdkv.Config{Endpoints: []string{m.URL}}, etcdkv.Layout{Kind: "server", Tables: ServerTables()}, etcdkv.OpenOrCreate)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		servers = append(servers, serverIn(t, d))
	}
	var wait sync.WaitGroup
	var accepted atomic.Int64
	for i := range 10 {
		wait.Go(func() {
			err := servers[i%2].AcceptID(t.Context(), "device", 1, 7)
			if err == nil {
				accepted.Add(1)
			} else if !errors.Is(err, msl.ErrMessageReplayed) {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if accepted.Load() != 1 {
		t.Errorf("%d accepted one id", accepted.Load())
	}
	wantErr(t, servers[0].RevokeEntity("device"), nil)
	wantErr(t, servers[1].Revoked(t.Context(), "device", ""), msl.ErrMasterTokenIdentityRevoked)
}
