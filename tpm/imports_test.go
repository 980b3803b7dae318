package tpm_test

import (
	"errors"
	"go/build"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/msl-hsm/msl-hsm/"

// TestImports holds the direction of dependencies: the packages under tpm know
// nothing of MSL, of another key store (but tpm/hostaes of that in software) or of the
// command, and the device and the authority nothing of each other. Only tpm/fleet, which brings them together, does.
// It looks at what a package imports and at what that imports in turn. Tests may
// import anything.
func TestImports(t *testing.T) {
	may := map[string][]string{ // besides internal/… and keystore
		"tpm":                    {"tpm/internal/statefile"},
		"tpm/tpmtest":            {},
		"tpm/identity":           {"tpm", "tpm/internal/proof", "tpm/internal/statefile"},
		"tpm/enroll":             {"tpm/internal/proof"},
		"tpm/enroll/etcd":        {"tpm/enroll", "tpm/internal/proof"},
		"tpm/fleet":              fleet(),
		"tpm/internal/proof":     {},
		"tpm/makers":             {},
		"tpm/hostaes":            {"keystore/soft", "tpm", "tpm/internal/statefile"},
		"tpm/internal/statefile": {},
	}
	for _, pkg := range packages(t) {
		allowed, ok := may[pkg]
		if !ok {
			t.Errorf("say here what %s may import", pkg)
			continue
		}
		for _, dep := range dependencies(t, pkg) {
			if dep != "keystore" && !strings.HasPrefix(dep, "internal/") && !slices.Contains(allowed, dep) {
				t.Errorf("%s depends on %s", pkg, dep)
			}
		}
	}
}

// fleet is what tpm/fleet may import: all of the device and the authority, and of MSL.
func fleet() []string {
	return []string{
		"tpm", "tpm/identity", "tpm/enroll", "tpm/internal/proof", "tpm/internal/statefile",
		"msl", "msl/entityauth", "msl/httpform", "msl/keyx", "msl/mslhttp", "msl/state", "msl/state/bolt", "msl/tlsalert",
		"msl/internal/wire", "msl/internal/keycache", "keystore/soft",
	}
}

// packages lists those under tpm.
func packages(t *testing.T) (found []string) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		_, err = build.ImportDir(path, 0)
		var none *build.NoGoError
		if errors.As(err, &none) {
			return nil
		}
		found = append(found, filepath.ToSlash(filepath.Join("tpm", path)))
		return err
	})
	if err != nil || len(found) < 3 {
		t.Fatalf("%v, %v", found, err)
	}
	return found
}

// dependencies lists the packages of this module that a package needs.
func dependencies(t *testing.T, pkg string) (found []string) {
	t.Helper()
	for todo := []string{pkg}; len(todo) > 0; todo = todo[1:] {
		p, err := build.ImportDir(filepath.Join("..", todo[0]), 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range p.Imports {
			if dep, ours := strings.CutPrefix(path, module); ours && !slices.Contains(found, dep) {
				found, todo = append(found, dep), append(todo, dep)
			}
		}
	}
	return found
}
