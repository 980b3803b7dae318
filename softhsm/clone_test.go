package softhsm_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestCloneWhole clones a token while another program looks at all of them: none is incomplete,
// or has the serial number of another.
func TestCloneWhole(t *testing.T) {
	token := softhsm.Temp(t)
	tokens := filepath.Join(filepath.Dir(token.Config), "tokens")
	done := make(chan error, 1)
	go func() {
		var err error
		for i := 0; i < 30 && err == nil; i++ {
			_, err = token.Clone("clone")
		}
		done <- err
	}()
	for {
		clones, err := filepath.Glob(filepath.Join(tokens, "clone-*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range clones {
			object, err := os.ReadFile(filepath.Join(dir, "token.object"))
			if len(object) < 0x40 || string(object[0x20:0x25]) != "clone" {
				t.Fatalf("an incomplete token of %d bytes, %v", len(object), err)
			}
		}
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		default:
		}
	}
}
