package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// writers are the two ways to write a file, for tests of what they have in common.
var writers = map[string]func(string, []byte, fs.FileMode) error{"replace": Replace, "create": Create}

func holds(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s holds %q, %v; want %q", filepath.Base(path), got, err, want)
	}
}

// names checks the exact content of a directory: nothing is left behind.
func names(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("the directory has %q, want %q", got, want)
	}
}

func put(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func symlink(t *testing.T, to, path string) string {
	t.Helper()
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWrite(t *testing.T) {
	for name, write := range writers {
		dir := t.TempDir()
		path := filepath.Join(dir, "file")
		if err := write(path, []byte("one"), 0); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		holds(t, path, "one")
		err := write(path, []byte("two"), 0)
		if name == "replace" && err != nil || name == "create" && !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s a file that is there: %v", name, err)
		}
		holds(t, path, map[string]string{"replace": "two", "create": "one"}[name])
		names(t, dir, "file")
	}
}

// TestLongName uses all that a name may have: the temporary one must not add to it.
func TestLongName(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("n", 255))
	for range 2 {
		if err := Replace(path, []byte("text"), 0); err != nil {
			t.Error(err)
		}
	}
}

func TestRelative(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := Create("here", []byte("1"), 0); err != nil {
		t.Error(err)
	}
	symlink(t, "here", "link")
	if err := Replace("link", []byte("2"), 0); err != nil {
		t.Error(err)
	}
	holds(t, "here", "2")
	names(t, ".", "here", "link")
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "file"), "old")
	for path, want := range map[string]string{
		"none/file": "no such file or directory",
		"file/file": "not a directory",
		"":          "is a directory",
		"new/":      "is a directory",
		".":         "",
	} {
		for name, write := range writers {
			err := write(dir+"/"+path, []byte("new"), 0)
			var about *fs.PathError
			if !errors.As(err, &about) || about.Path != dir+"/"+path || !strings.Contains(err.Error(), want) && name == "create" {
				t.Errorf("%s %q: %v, want %q", name, path, err, want)
			}
			if err != nil && strings.Contains(err.Error(), ".new-") {
				t.Errorf("%s %q names its temporary file: %v", name, path, err)
			}
		}
	}
	holds(t, filepath.Join(dir, "file"), "old")
	names(t, dir, "file")
}

// TestCrash stops after each step, as a crash does, and looks at what is there.
func TestCrash(t *testing.T) {
	dir := t.TempDir()
	path := put(t, filepath.Join(dir, "file"), "old")
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	temporary, err := stage(root, []byte("new"), 0)
	if err != nil {
		t.Fatal(err)
	}
	holds(t, path, "old")
	holds(t, filepath.Join(dir, temporary), "new")
	if !strings.HasPrefix(temporary, ".new-") {
		t.Errorf("temporary name %q", temporary)
	}
	names(t, dir, temporary, "file")
	// Files left by a dead process do no harm.
	if err := Replace(path, []byte("newer"), 0); err != nil {
		t.Error(err)
	}
	holds(t, path, "newer")
	names(t, dir, temporary, "file")
}

// TestSweep leaves what a dead process left an hour ago to the next write, and nothing else:
// neither what another process may still be writing, nor files with names of their own.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	random := strings.Repeat("K7", 13)
	for name, old := range map[string]time.Duration{
		".new-" + random: 61 * time.Minute, ".new-A" + random[1:]: 59 * time.Minute, ".new-B" + random[1:]: -time.Hour,
		".new-config.yaml": 24 * time.Hour, ".new-" + strings.ToLower(random): 24 * time.Hour, ".new-" + random + "A": 24 * time.Hour,
	} {
		when := time.Now().Add(-old)
		if err := os.Chtimes(put(t, filepath.Join(dir, name), "left"), when, when); err != nil {
			t.Fatal(err)
		}
	}
	if err := Replace(filepath.Join(dir, "file"), []byte("new"), 0); err != nil {
		t.Fatal(err)
	}
	names(t, dir, ".new-A"+random[1:], ".new-B"+random[1:], ".new-"+random+"A", ".new-config.yaml", ".new-"+strings.ToLower(random), "file")
}

// TestPublishFails checks that nothing is left when the last step fails.
func TestPublishFails(t *testing.T) {
	dir := t.TempDir()
	path := put(t, filepath.Join(dir, "file"), "old")
	err := write(path, []byte("new"), 0, func(*os.Root, string, string) error { return fs.ErrPermission })
	if !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
	holds(t, path, "old")
	names(t, dir, "file")
}

// TestReserve is Create on a file system that has no hard links.
func TestReserve(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := write(path, []byte("one"), 0, reserve); err != nil {
		t.Fatal(err)
	}
	if err := write(path, []byte("two"), 0, reserve); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file: %v", err)
	}
	symlink(t, "elsewhere", filepath.Join(dir, "link"))
	if err := write(filepath.Join(dir, "link"), []byte("two"), 0, reserve); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a link: %v", err)
	}
	holds(t, path, "one")
	names(t, dir, "file", "link")
}

// TestAsideLinkless is Aside on a file system that has no hard links.
func TestAsideLinkless(t *testing.T) {
	dir := t.TempDir()
	path := put(t, filepath.Join(dir, "file"), "old")
	for _, want := range []string{path + ".lost", path + ".lost-2"} {
		name, err := aside(path, ".lost", func(string, string) error { return syscall.EPERM })
		if name != want || err != nil {
			t.Errorf("%s, %v; want %s", name, err, want)
		}
		holds(t, want, "old")
	}
	if err := Replace(path, []byte("new"), 0); err != nil {
		t.Fatal(err)
	}
	holds(t, path+".lost", "old")
	names(t, dir, "file", "file.lost", "file.lost-2")
}

func TestLinksFollowed(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data", "deep")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	real := put(t, filepath.Join(data, "real"), "old")
	symlink(t, "data/deep", filepath.Join(dir, "short"))
	put(t, filepath.Join(dir, "data", "beside"), "old")
	for to, want := range map[string]string{
		real:              real,
		"data/deep/real":  real,
		"short/real":      real,
		"short/../beside": filepath.Join(dir, "data", "beside"), // of data/deep, not of short
	} {
		link := symlink(t, to, filepath.Join(dir, "link"))
		twice := symlink(t, "link", filepath.Join(dir, "twice"))
		for _, path := range []string{link, twice} {
			if err := Replace(path, []byte(path), 0); err != nil {
				t.Errorf("to %s: %v", to, err)
			}
			holds(t, want, path)
			if got, err := os.Readlink(path); err != nil || got == "" {
				t.Errorf("to %s: the link is gone: %v", to, err)
			}
		}
		os.Remove(link)
		os.Remove(twice)
	}
	names(t, data, "real")
	names(t, dir, "data", "short")
}

func TestLinksRefused(t *testing.T) {
	dir := t.TempDir()
	victim := put(t, filepath.Join(dir, "victim"), "old")
	symlink(t, "nothing", filepath.Join(dir, "dangling"))
	symlink(t, "ring", filepath.Join(dir, "ring"))
	symlink(t, dir, filepath.Join(dir, "directory"))
	symlink(t, victim, filepath.Join(dir, "good"))
	all := []string{"dangling", "directory", "good", "ring", "victim"}
	for _, name := range all {
		path := filepath.Join(dir, name)
		if err := Create(path, []byte("new"), 0); !errors.Is(err, fs.ErrExist) {
			t.Errorf("create %s: %v", name, err)
		}
		if name == "good" || name == "victim" {
			continue
		}
		if err := Replace(path, []byte("new"), 0); err == nil {
			t.Errorf("replaced through %s", name)
		}
	}
	holds(t, victim, "old")
	names(t, dir, all...)
}

// TestConcurrent checks that each reader sees one whole version.
func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	var group sync.WaitGroup
	for n := range 4 {
		text := strings.Repeat(fmt.Sprint(n), 1<<16)
		group.Go(func() {
			for range 8 {
				if err := Replace(path, []byte(text), 0); err != nil {
					t.Error(err)
				}
				if got, err := os.ReadFile(path); err != nil || len(got) != len(text) || strings.Trim(string(got), string(got[:1])) != "" {
					t.Errorf("%d bytes of several versions, %v", len(got), err)
				}
			}
		})
	}
	group.Wait()
	names(t, dir, "file")
}

func TestConcurrentCreate(t *testing.T) {
	dir := t.TempDir()
	made := make(chan bool, 8)
	for range cap(made) {
		go func() { made <- Create(filepath.Join(dir, "file"), []byte("text"), 0) == nil }()
	}
	count := 0
	for range cap(made) {
		if <-made {
			count++
		}
	}
	if count != 1 {
		t.Errorf("%d made the file", count)
	}
	names(t, dir, "file")
}

// TestCreateThere makes a file that is there: nothing is written for that, since there may be no
// room, or no right to.
func TestCreateThere(t *testing.T) {
	dir := t.TempDir()
	path, long := filepath.Join(dir, "file"), time.Unix(1, 0)
	err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(dir, long, long))
	if err != nil {
		t.Fatal(err)
	}
	if err := Create(path, []byte("text"), 0); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
	if info, err := os.Stat(dir); err != nil || !info.ModTime().Equal(long) {
		t.Errorf("something was written: %v, %v", info, err)
	}
}

// TestPublish gives files their names when they are complete.
func TestPublish(t *testing.T) {
	dir := t.TempDir()
	part, path := filepath.Join(dir, "part", "x"), filepath.Join(dir, "x")
	err := errors.Join(os.Mkdir(filepath.Dir(part), 0o700), os.WriteFile(part, []byte("one"), 0o600), Publish(part, path))
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(part+"2", []byte("two"), 0o600)
	if err := Publish(part+"2", path); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
	if content, err := os.ReadFile(path); string(content) != "one" || err != nil {
		t.Errorf("%q, %v", content, err)
	}
	if err := Publish(filepath.Join(t.TempDir(), "x"), path+"2"); err == nil {
		t.Error("a file from elsewhere")
	}
	if err := Publish(part, filepath.Join(dir, "no", "x")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestSyncDir(t *testing.T) {
	dir := t.TempDir()
	if err := SyncDir(dir); err != nil {
		t.Error(err)
	}
	if err := SyncDir(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestUnsynced checks that a file that was put in place is not reported as one that was
// not.
func TestUnsynced(t *testing.T) {
	err := about("replace", "file", errors.Join(ErrUnsynced, &fs.PathError{Op: "sync", Path: ".", Err: fs.ErrInvalid}))
	if !errors.Is(err, ErrUnsynced) || !errors.Is(err, fs.ErrInvalid) {
		t.Error(err)
	}
}

func TestAside(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(path, []byte("first"), 0o600), os.Symlink("file", link)); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"file.old", "file.old-2"} {
		name, err := Aside([]string{path, link}[i], ".old")
		if err != nil || filepath.Base(name) != want {
			t.Errorf("%q, %v, want %q", name, err, want)
		}
	}
	if err := Replace(path, []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"file": "second", "file.old": "first", "file.old-2": "first"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if name, err := Aside(filepath.Join(dir, "none"), ".old"); !errors.Is(err, fs.ErrNotExist) || name != "" {
		t.Errorf("%q, %v", name, err)
	}
	if name, err := Aside(dir, ".old"); err == nil {
		t.Errorf("a directory has the name %q", name)
	}
}
