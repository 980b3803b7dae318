//go:build !noetcd

package enroll_test

import (
	"fmt"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/enroll/etcd"
)

// TestSuiteInEtcd has authorities over one cluster, as two servers have them.
func TestSuiteInEtcd(t *testing.T) {
	m, n := etcdtest.Start(t), 0
	enroll.RunSuite(t, func(t testing.TB) enroll.Place {
		n++
		c := etcd.Config{Endpoints: []string{m.URL}, Prefix: fmt.Sprint("place/", n), Key: kvtest.Secret("key")}
		if err := etcd.Create(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		open := func() *etcd.Records {
			r, err := etcd.Open(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { r.Close() })
			return r
		}
		return enroll.Place{Open: func() enroll.Records { return open() }, Check: open().Check}
	})
}
