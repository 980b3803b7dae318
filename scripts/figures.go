//go:build ignore

// Counts what can be counted in the source: see scripts/figures.
package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	longFile     = 400 // lines
	shortFunc    = 25
	longFunc     = 60
	manyMethods  = 25
	commandFiles = "cmd/msl-hsm"
)

// A file is a parsed file, and its length.
type file struct {
	path  string
	lines int
	tree  *ast.File
}

func (f file) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

// A count is something that has a number.
type count struct {
	name string
	n    int
}

func main() {
	set := token.NewFileSet()
	files, inC, err := load(set)
	if err != nil {
		fmt.Fprintln(os.Stderr, "figures:", err)
		os.Exit(1)
	}
	var source []file
	for _, f := range files {
		if !f.isTest() {
			source = append(source, f)
		}
	}
	printFiles(files, source, inC)
	printFunctions(set, source)
	printMethods(source)
	printPackageMain(source)
	printRing(set, source)
}

// load parses every Go file below the working directory, and counts the lines of those in C.
func load(set *token.FileSet) (all []file, inC []count, err error) {
	err = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && path != "."):
			return fs.SkipDir
		case !d.IsDir() && (filepath.Ext(path) == ".c" || filepath.Ext(path) == ".h"):
			text, err := os.ReadFile(path)
			inC = append(inC, count{path, bytes.Count(text, []byte("\n"))})
			return err
		case d.IsDir() || filepath.Ext(path) != ".go":
			return nil
		}
		tree, err := parser.ParseFile(set, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		all = append(all, file{path, set.File(tree.Package).LineCount(), tree})
		return nil
	})
	if len(all) == 0 && err == nil {
		err = errors.New("there are no Go files")
	}
	return all, inC, err
}

func printFiles(files, source []file, inC []count) {
	var lines, tests int
	long := slices.DeleteFunc(inC, func(c count) bool { return c.n <= longFile })
	for _, f := range files {
		if f.isTest() {
			tests += f.lines
		} else {
			lines += f.lines
		}
		if f.lines > longFile {
			long = append(long, count{f.path, f.lines})
		}
	}
	fmt.Printf("Go files: %d with %d lines, and %d tests with %d lines\n", len(source), lines, len(files)-len(source), tests)
	print(fmt.Sprintf("files over %d lines", longFile), long)
}

// printFunctions counts the lines of functions that are not tests, from func to the
// closing brace.
func printFunctions(set *token.FileSet, source []file) {
	var all, short int
	var long []count
	for _, f := range source {
		for _, d := range f.tree.Decls {
			function, ok := d.(*ast.FuncDecl)
			if !ok || function.Body == nil {
				continue
			}
			n := set.Position(function.End()).Line - set.Position(function.Pos()).Line + 1
			all++
			if n <= shortFunc {
				short++
			}
			if n > longFunc {
				long = append(long, count{f.path + " " + function.Name.Name, n})
			}
		}
	}
	fmt.Printf("functions: %d, of which %.1f%% have at most %d lines\n", all, 100*float64(short)/float64(max(all, 1)), shortFunc)
	print(fmt.Sprintf("functions over %d lines", longFunc), long)
}

func printMethods(source []file) {
	methods := map[string]int{}
	for _, f := range source {
		for _, d := range f.tree.Decls {
			if function, ok := d.(*ast.FuncDecl); ok && function.Recv != nil {
				methods[filepath.Dir(f.path)+" "+receiver(function)]++
			}
		}
	}
	var many []count
	for name, n := range methods {
		if n > manyMethods {
			many = append(many, count{name, n})
		}
	}
	print(fmt.Sprintf("types with more than %d methods", manyMethods), many)
}

// receiver is the name of the type that a method belongs to.
func receiver(method *ast.FuncDecl) string {
	name := types.ExprString(method.Recv.List[0].Type)
	name, _, _ = strings.Cut(strings.TrimPrefix(name, "*"), "[")
	return name
}

func printPackageMain(source []file) {
	var main []count
	lines := 0
	for _, f := range source {
		if f.tree.Name.Name == "main" && !strings.HasPrefix(f.path, "scripts/") {
			main = append(main, count{f.path, f.lines})
			lines += f.lines
		}
	}
	fmt.Printf("package main: %d lines in %d files\n", lines, len(main))
}

// printRing counts, for each package of the command, the files that depend on each
// other, directly or by others: those from which a way leads back to them.
func printRing(set *token.FileSet, source []file) {
	packages := map[string][]*ast.File{}
	for _, f := range source {
		if dir := filepath.Dir(f.path); dir == commandFiles || strings.HasPrefix(dir, commandFiles+"/") {
			packages[dir] = append(packages[dir], f.tree)
		}
	}
	var rings []count
	for dir, trees := range packages {
		uses := dependencies(set, trees)
		for path := range uses {
			if reaches(uses, path) {
				rings = append(rings, count{dir, 1})
			}
		}
	}
	fmt.Println("files of the command that depend on each other in a ring:")
	for dir, trees := range packages {
		n := 0
		for _, r := range rings {
			if r.name == dir {
				n++
			}
		}
		fmt.Printf("  %5d  of %d in %s\n", n, len(trees), dir)
	}
}

// nothing stands for every package that is imported.
type nothing struct{}

func (nothing) Import(path string) (*types.Package, error) {
	p := types.NewPackage(path, filepath.Base(path))
	p.MarkComplete()
	return p, nil
}

// dependencies are the files that each file of a package uses: it names what another
// one declares on the level of the package, or calls a method that it declares. What
// comes from other packages is not known, and not needed.
func dependencies(set *token.FileSet, trees []*ast.File) map[string][]string {
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: nothing{}, Error: func(error) {}}
	p, _ := config.Check(commandFiles, set, trees, info)
	uses := map[string][]string{}
	for name, object := range info.Uses {
		_, function := object.(*types.Func)
		if object.Pkg() != p || !function && object.Parent() != p.Scope() {
			continue
		}
		from, to := set.Position(name.Pos()).Filename, set.Position(object.Pos()).Filename
		if from != to && !slices.Contains(uses[from], to) {
			uses[from] = append(uses[from], to)
		}
	}
	return uses
}

// reaches reports whether a way leads from a file back to it.
func reaches(uses map[string][]string, start string) bool {
	seen := map[string]bool{}
	for next := slices.Clone(uses[start]); len(next) > 0; next = next[1:] {
		file := next[0]
		if file == start {
			return true
		}
		if !seen[file] {
			seen[file] = true
			next = append(next, uses[file]...)
		}
	}
	return false
}

// print lists counts, the largest first.
func print(title string, all []count) {
	fmt.Printf("%s: %d\n", title, len(all))
	slices.SortFunc(all, func(a, b count) int { return cmp.Or(b.n-a.n, strings.Compare(a.name, b.name)) })
	for _, c := range all {
		fmt.Printf("  %5d  %s\n", c.n, c.name)
	}
}
