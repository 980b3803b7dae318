//go:build !noetcd

package etcd

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// TestCrowded approves many devices while two operators change records without a pause:
// MSL_SOAK=1 go test -run Crowded -v
func TestCrowded(t *testing.T) {
	if os.Getenv("MSL_SOAK") == "" {
		t.Skip("it takes a while: set MSL_SOAK=1")
	}
	const many = 200
	m := etcdtest.StartDurable(t)
	c := Config{Endpoints: []string{m.URL}, Key: kvtest.Secret("key")}
	must(t, Create(t.Context(), c))
	authority := func() *enroll.Authority {
		a, err := enroll.NewAuthority(enroll.Config{Records: opened(t, c)})
		must(t, err)
		return a
	}
	ctx, end := context.WithCancel(t.Context())
	var others sync.WaitGroup
	var changes atomic.Int64
	for n := range byte(2) {
		a := authority()
		others.Go(func() {
			for ctx.Err() == nil {
				if a.Approve(ctx, enroll.ID{0xff, n}, "", "") == nil {
					changes.Add(1)
				}
			}
		})
	}
	var list []enroll.Approval
	for n := range many {
		list = append(list, enroll.Approval{ID: enroll.ID{byte(n)}, Name: fmt.Sprint("device-", n)})
	}
	a, began := authority(), time.Now()
	for _, err := range a.ApproveAll(ctx, list) {
		must(t, err)
	}
	t.Logf("%d devices in %v, and %d changes by the others meanwhile", many, time.Since(began), changes.Load())
	end()
	others.Wait()
}
