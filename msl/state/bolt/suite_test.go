package bolt

import (
	"path/filepath"
	"testing"

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

func BenchmarkIDs(b *testing.B) {
	path := filepath.Join(b.TempDir(), "state")
	statetest.BenchmarkIDs(b, func(t testing.TB) statetest.Server {
		s, err := OpenServer(path)
		if err != nil {
			t.Fatal(err)
		}
		return statetest.Server{Server: s.Server, Close: s.Close}
	})
}
