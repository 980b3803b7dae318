//go:build !noetcd

package enroll_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/enroll/etcd"
)

// TestSuiteInEtcd has authorities over one cluster, as two servers have them.
func TestSuiteInEtcd(t *testing.T) {
	m, n := etcdtest.Start(t), 0
	enroll.RunSuite(t, func(t testing.TB) enroll.Place {
		n++
		c := etcd.Config{Endpoints: []string{m.URL}, Prefix: fmt.Sprint("place/", n), Key: secret("key")}
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

// A secret is a key that authenticates records, in memory.
type secret string

func (s secret) Tag(data []byte) ([]byte, error) {
	m := hmac.New(sha256.New, []byte(s))
	m.Write(data)
	return m.Sum(nil), nil
}

func (s secret) Check(data, tag []byte) (bool, error) {
	own, err := s.Tag(data)
	return hmac.Equal(own, tag), err
}
