package hsmtest

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
)

//go:embed module
var source embed.FS

// compiled is the shared object, read or made once in a process.
var compiled = sync.OnceValues(object)

// object returns the shared object that $CC, or cc, makes. It is kept in the user's cache for
// other processes; if that does not work, each of them compiles.
func object() ([]byte, error) {
	cc, err := compiler()
	if err != nil {
		return nil, fmt.Errorf("hsmtest: %w", err)
	}
	name, err := key(cc)
	if err != nil {
		return nil, fmt.Errorf("hsmtest: %w", err)
	}
	dir, err := cache()
	if err != nil {
		return compile(cc)
	}
	kept := filepath.Join(dir, name)
	if made, err := os.ReadFile(kept); err == nil {
		return made, nil
	}
	made, err := compile(cc)
	if err == nil {
		_ = atomicfile.Replace(kept, made, 0o600)
	}
	return made, err
}

// compiler is the command that is to compile, without files.
func compiler() ([]string, error) {
	cc := strings.Fields(os.Getenv("CC"))
	if len(cc) == 0 {
		cc = []string{"cc"}
	}
	path, err := exec.LookPath(cc[0])
	cc[0] = path
	return append(cc, "-std=gnu11", "-shared", "-fPIC", "-fvisibility=hidden", "-O0", "-Wall", "-Wextra"), err
}

// cache is the directory for shared objects in the cache of the user, which only they write.
func cache() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "hsmtest")
	return dir, os.MkdirAll(dir, 0o700)
}

// key is a hash of what the shared object is made of: the command, the compiler and the source.
func key(cc []string) (string, error) {
	compiler, err := os.Stat(cc[0])
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%q %d %v", cc, compiler.Size(), compiler.ModTime())
	err = fs.WalkDir(source, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := source.ReadFile(path)
		fmt.Fprintf(h, "%q %q", path, text)
		return err
	})
	return hex.EncodeToString(h.Sum(nil)), err
}

// compile runs the compiler in a directory that goes at once.
func compile(cc []string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "hsmtest")
	if err != nil {
		return nil, fmt.Errorf("hsmtest: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := os.CopyFS(dir, source); err != nil {
		return nil, fmt.Errorf("hsmtest: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "module", "*.c"))
	if err != nil {
		return nil, fmt.Errorf("hsmtest: %w", err)
	}
	made := filepath.Join(dir, "hsmtest.so")
	args := append(append(cc[1:], "-o", made), files...)
	if out, err := exec.Command(cc[0], append(args, "-ldl", "-lpthread")...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("hsmtest: %s: %w\n%s", cc[0], err, out)
	}
	return os.ReadFile(made)
}
