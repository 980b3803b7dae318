//go:build !noetcd

package etcdkv

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
)

// TestCAReplaced gives etcd a certificate of another CA while a follower runs: it says that it
// does not know the CA, and goes on as soon as it can read the new one. Commands that begin
// meanwhile do the same.
func TestCAReplaced(t *testing.T) {
	t.Parallel()
	former, next := newAuthority(t), newAuthority(t)
	args := former.files(t)
	m := etcdtest.StartDurable(t, args...)
	var now atomic.Pointer[x509.CertPool]
	now.Store(former.pool())
	c := Config{Endpoints: []string{m.URL}, TLS: former.client(t, nil), DialTimeout: 2 * time.Second, Timeout: 2 * time.Second, Roots: func() (*x509.CertPool, error) {
		if roots := now.Load(); roots != nil {
			return roots, nil
		}
		return nil, fs.ErrNotExist
	}}
	patient := c
	patient.DialTimeout, patient.Timeout = 0, 0
	openAt(t, patient) // it has begun
	f := follow(t, c, Following{})
	putIn(t, f, "first", "a", "1")
	m.Kill()
	others := next.files(t)
	for _, name := range []string{"--cert-file", "--key-file"} {
		i := slices.Index(args, name) + 1
		text, err := os.ReadFile(others[i])
		if err = errors.Join(err, os.WriteFile(args[i], text, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	m.Restart(t)
	change := func() error {
		return f.Update(t.Context(), func(tx kv.Tx) error { return tx.Put("first", []byte("a"), []byte("2")) })
	}
	eventually(t, "the follower does not say that it does not know the CA", func() bool {
		err := change()
		return err != nil && strings.Contains(err.Error(), "configure the CA of etcd")
	})
	now.Store(nil)
	_, err := Open(t.Context(), c, followedLayout(), OpenExisting)
	wantErr(t, err, nil, fs.ErrNotExist.Error())
	now.Store(next.pool())
	eventually(t, "no change is made with the new CA", func() bool { return change() == nil })
	openAt(t, c)
}
