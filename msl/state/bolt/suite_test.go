package bolt

import (
	"path/filepath"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
	"github.com/msl-hsm/msl-hsm/msl/state/statetest"
)

func TestSuite(t *testing.T) {
	statetest.TestServer(t, func(t testing.TB) statetest.Open {
		path := filepath.Join(t.TempDir(), "state")
		return func(t testing.TB) statetest.Server {
			s, err := OpenServer(path)
			if err != nil {
				t.Fatal(err)
			}
			return statetest.Server{Server: s.Server, Close: s.Close}
		}
	})
}

func BenchmarkIDs(b *testing.B)        { benchmarkIDs(b, Files{}) }
func BenchmarkIDsGuarded(b *testing.B) { benchmarkIDs(b, guarded(&kvtest.Mark{}, authkv.Adopt)) }

func benchmarkIDs(b *testing.B, f Files) {
	path := filepath.Join(b.TempDir(), "state")
	statetest.BenchmarkIDs(b, func(t testing.TB) statetest.Server {
		s, err := f.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return statetest.Server{Server: s.Server, Close: s.Close}
	})
}
