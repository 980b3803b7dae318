package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// TestLinks follows every link from a page of the documentation to a file, and to a
// heading in it.
func TestLinks(t *testing.T) {
	skipWithRace(t)
	pages, err := filepath.Glob("../../../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	top, err := filepath.Glob("../../../../*.md")
	if err != nil {
		t.Fatal(err)
	}
	links := 0
	for _, name := range append(pages, top...) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		prose := regexp.MustCompile("(?s)```.*?```").ReplaceAllString(string(text), "")
		for _, link := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(prose, -1) {
			if strings.Contains(link[1], "://") {
				continue
			}
			links++
			follow(t, name, link[1])
		}
	}
	if links < 20 {
		t.Errorf("found %d links", links)
	}
}

func follow(t *testing.T, from, link string) {
	t.Helper()
	path, anchor, _ := strings.Cut(link, "#")
	if path == "" {
		path = filepath.Base(from)
	}
	text, err := os.ReadFile(filepath.Join(filepath.Dir(from), path))
	if err != nil {
		t.Errorf("%s: %v", from, err)
		return
	}
	for _, line := range strings.Split("# \n"+string(text), "\n") {
		if heading := strings.TrimLeft(line, "#"); heading != line && anchor == slug(heading) {
			return
		}
	}
	t.Errorf("%s: %s has no heading for %s", from, path, link)
}

// slug is the anchor of a heading, as GitHub makes it.
func slug(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			return unicode.ToLower(r)
		}
		return -1
	}, strings.TrimSpace(heading))
}

// TestArchitecture looks for every file that docs/architecture.md names.
func TestArchitecture(t *testing.T) {
	files := 0
	for _, name := range regexp.MustCompile("`([a-z0-9_-]+(?:/[a-z0-9_.-]+)+)`").FindAllStringSubmatch(page(t, "architecture.md"), -1) {
		files++
		if _, err := os.Stat(filepath.Join("../../../..", name[1])); err != nil {
			t.Errorf("docs/architecture.md: %v", err)
		}
	}
	if files < 20 {
		t.Errorf("found %d files", files)
	}
}

// TestFloors compares the floors in docs/architecture.md with what packages import.
func TestFloors(t *testing.T) {
	skipWithRace(t)
	const module = "github.com/msl-hsm/msl-hsm/"
	floors := map[string]int{}
	for _, line := range regexp.MustCompile(`(?m)^ ?(\d+)  (.+)$`).FindAllStringSubmatch(page(t, "architecture.md"), -1) {
		for _, name := range strings.Fields(line[2]) {
			floors[name], _ = strconv.Atoi(line[1])
		}
	}
	list := exec.Command("go", "list", "-e", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"...")
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		imports := strings.Fields(line)
		name := strings.TrimPrefix(imports[0], module)
		if strings.HasSuffix(name, "test") {
			continue
		}
		floor, there := floors[name]
		if !there {
			t.Errorf("docs/architecture.md has no floor for %s", name)
		}
		for _, path := range imports[1:] {
			if below, own := strings.CutPrefix(path, module); own && floors[below] >= floor {
				t.Errorf("%s is on floor %d and imports %s of floor %d", name, floor, below, floors[below])
			}
		}
	}
}
