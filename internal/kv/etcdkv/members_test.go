//go:build !noetcd

package etcdkv

import (
	"context"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
)

// TestMembers asks a member that is well, and one that is not there.
func TestMembers(t *testing.T) {
	m := etcdtest.Start(t)
	d := openAt(t, Config{Endpoints: []string{m.URL, "http://127.0.0.1:1"}})
	all := d.Members(t.Context())
	if len(all) != 2 || all[0].Err != nil || !all[0].Leader || all[0].Version == "" || all[0].Size == 0 || all[0].Endpoint != m.URL {
		t.Fatalf("%+v", all)
	}
	if all[1].Err == nil || all[1].Leader {
		t.Errorf("nobody answers there: %+v", all[1])
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if all := d.Members(ctx); all[0].Err == nil {
		t.Errorf("nobody waits: %+v", all[0])
	}
	if d.Close(); len(d.Members(t.Context())) != 0 {
		t.Error("a store that is closed has members")
	}
}
