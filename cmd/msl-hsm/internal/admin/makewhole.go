package admin

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
)

// makeWhole makes a file of records under another name, gives it its own when it is complete, and
// reports whether it did: another process may have been first. A process that is killed meanwhile leaves
// nothing at path: a file without its authentication would look like one that somebody changed.
func makeWhole(path string, create func(making string) (io.Closer, error)) (made bool, err error) {
	at, err := atomicfile.End(path)
	if err != nil {
		return false, err
	}
	making := filepath.Join(filepath.Dir(at), ".new-"+rand.Text()) // which atomicfile removes if it stays
	f, err := create(making)
	if err == nil {
		err = f.Close()
	}
	if err == nil {
		err = atomicfile.Publish(making, at)
	}
	if left := os.Remove(making); left != nil && !errors.Is(left, fs.ErrNotExist) && err == nil {
		err = left
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return false, nil
	case err != nil:
		return false, exit.OfKind(err, "%s", strings.ReplaceAll(err.Error(), making, path))
	}
	return true, nil
}
