//go:build ignore

// Types checks the types of packages, and of all that they import, from their source, for another
// platform and without cgo: go run scripts/types.go GOOS/GOARCH PACKAGE... It finds what the
// compiler would refuse, such as a constant that does not fit into an int of 32 bits, in a tenth
// of the time, as it makes no code.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A unit is a package as go list -deps tells it: those it imports come first.
type unit struct {
	ImportPath, Dir string
	GoFiles         []string
	ImportMap       map[string]string
	Standard        bool
}

func main() {
	log.SetFlags(0)
	system, arch, ok := strings.Cut(append(os.Args, "")[1], "/")
	if !ok {
		log.Fatal("usage: types GOOS/GOARCH PACKAGE...")
	}
	list := exec.Command("go", append([]string{"list", "-deps", "-json=ImportPath,Dir,GoFiles,ImportMap,Standard"}, os.Args[2:]...)...)
	list.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+arch)
	list.Stderr = os.Stderr
	out, err := list.StdoutPipe()
	if err == nil {
		err = list.Start()
	}
	if err != nil {
		log.Fatal(err)
	}
	checked := map[string]*types.Package{"unsafe": types.Unsafe}
	failed := false
	for units := json.NewDecoder(out); ; {
		var u unit
		if err := units.Decode(&u); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			log.Fatal(err)
		}
		if err := u.check(arch, checked); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", u.ImportPath, err)
			failed = true
		}
	}
	if list.Wait() != nil || failed {
		os.Exit(1)
	}
}

// check adds a package to those that are checked. Of others' functions it reads no bodies.
func (u *unit) check(arch string, checked map[string]*types.Package) error {
	if u.ImportPath == "unsafe" {
		return nil
	}
	files := token.NewFileSet()
	var parsed []*ast.File
	for _, name := range u.GoFiles {
		file, err := parser.ParseFile(files, filepath.Join(u.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		parsed = append(parsed, file)
	}
	var all []error
	config := types.Config{
		Importer:         importer{u.ImportMap, checked},
		Sizes:            types.SizesFor("gc", arch),
		IgnoreFuncBodies: u.Standard,
		FakeImportC:      true,
		Error:            func(err error) { all = append(all, err) },
	}
	checked[u.ImportPath], _ = config.Check(u.ImportPath, files, parsed, nil)
	return errors.Join(all...)
}

// An importer finds what was checked before.
type importer struct {
	names   map[string]string // where a vendored package is
	checked map[string]*types.Package
}

func (i importer) Import(path string) (*types.Package, error) {
	if name, ok := i.names[path]; ok {
		path = name
	}
	if p := i.checked[path]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%s is not checked", path)
}
