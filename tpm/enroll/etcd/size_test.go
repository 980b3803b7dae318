//go:build !noetcd

package etcd

import (
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// TestManyRecords measures what many devices cost: MSL_SOAK=1 go test -run ManyRecords -v
func TestManyRecords(t *testing.T) {
	if os.Getenv("MSL_SOAK") == "" {
		t.Skip("it takes minutes: set MSL_SOAK=1")
	}
	const many = 20_000
	m := etcdtest.StartDurable(t)
	c := Config{Endpoints: []string{m.URL}, Key: kvtest.Secret("key")}
	f, err := enroll.OpenFile(t.TempDir() + "/from")
	must(t, err)
	defer f.Close()
	filled := make([]byte, 4<<10)
	for n := 0; n < many; {
		must(t, f.Update(t.Context(), func(tx enroll.Tx) error {
			for range f.AtOnce() {
				r := record(0)
				r.ID = enroll.ID{byte(n >> 16), byte(n >> 8), byte(n)}
				r.Name = "tpm-" + r.ID.String()[:32]
				r.Registered, r.Certificates = r.Name, []enroll.Certificate{{Serial: r.ID.String()[:32], Name: r.Name}}
				r.Evidence = &enroll.Evidence{Proof: filled}
				if n++; n > many {
					break
				}
				must(t, tx.Put(r))
			}
			return nil
		}))
	}
	began := time.Now()
	_, err = Import(t.Context(), c, f.Stored, nil)
	must(t, err)
	t.Logf("imported in %v", time.Since(began))
	before := heap()
	began = time.Now()
	r := opened(t, c)
	t.Logf("opened in %v, with %d bytes of memory for each", time.Since(began), (heap()-before)/many)
	began = time.Now()
	for n := range byte(50) {
		put(t, r, record(n))
	}
	t.Logf("a change takes %v", time.Since(began)/50)
	command, err := Administer(t.Context(), c)
	must(t, err)
	defer command.Close()
	began = time.Now()
	must(t, command.Verify(t.Context()))
	t.Logf("a command verifies in %v", time.Since(began))
	began = time.Now()
	must(t, command.View(t.Context(), func(tx enroll.Tx) error {
		_, err := tx.Page(enroll.Query{Limit: 250})
		return err
	}))
	t.Logf("a page of 250 takes %v", time.Since(began))
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
