// Package filewatch notices that files were replaced or changed, by looking at them again
// and again. That works for a rename, for a symbolic link that is led elsewhere (as
// Kubernetes does with ..data), for a file system of another machine, and for a file that is
// not there yet.
package filewatch

import (
	"cmp"
	"context"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"
)

// A Look is what files looked like at one moment, by their paths.
type Look map[string]stamp

// A stamp tells one content of a file from another. That of no file is zero. Links are
// followed.
type stamp struct {
	there  bool
	size   int64
	at     time.Time
	device uint64
	file   uint64 // inode
}

// At looks at files. Paths that are empty are left out.
func At(paths ...string) Look {
	l := Look{}
	for _, path := range paths {
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			l[path] = stamp{}
			continue
		}
		l[path] = stampOf(info)
	}
	return l
}

func stampOf(info fs.FileInfo) stamp {
	s := stamp{there: true, size: info.Size(), at: info.ModTime()}
	s.device, s.file = inode(info)
	return s
}

// Of returns how those paths looked: those that were not looked at, as they are now.
func (l Look) Of(paths ...string) Look {
	of := At(paths...)
	for path := range of {
		if seen, ok := l[path]; ok {
			of[path] = seen
		}
	}
	return of
}

// Differ returns the paths of what is not the same in another look, in order.
func (l Look) Differ(other Look) (paths []string) {
	for path, s := range l {
		if other[path] != s {
			paths = append(paths, path)
		}
	}
	for path := range other {
		if _, both := l[path]; !both {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths
}

// A Watch has files taken that changed. Files and Take must be set.
type Watch struct {
	// Files returns the paths of the files, which may be others each time.
	Files func() []string
	// Take takes the files, of which those with these paths changed. An error means that
	// they cannot be used as they are. It may then be called again, with again set, though
	// nothing changed since: what else was amiss may be well.
	Take func(changed []string, again bool) error
	// Every is how often they are looked at. Zero means 5 seconds.
	Every time.Duration

	mu    sync.Mutex
	taken Look // in use
	last  Look
	tried Look // in vain
	tries int  // looks since then
}

// patience is after how many looks what could not be used is tried again.
const patience = 12

// Took says that files are in use now which looked so before they were read.
func (w *Watch) Took(l Look) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.taken, w.last, w.tried = l, l, nil
}

// Start looks until the function that it returns is called, which waits for what is being
// taken.
func (w *Watch) Start() (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.run(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

func (w *Watch) run(ctx context.Context) {
	ticker := time.NewTicker(cmp.Or(w.Every, 5*time.Second))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			w.Step()
		}
	}
}

// Step looks once. Files that changed are taken at the next look, if they are as they were:
// one that is just being written is not.
func (w *Watch) Step() {
	now := At(w.Files()...)
	changed, again := w.settled(now)
	if len(changed) == 0 {
		return
	}
	if w.Take(changed, again) == nil {
		w.Took(now)
	}
}

// settled returns the files that changed and then stayed as they are.
func (w *Watch) settled(now Look) (changed []string, again bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.taken == nil {
		w.taken = now
	}
	before := w.last
	w.last = now
	if changed = now.Differ(w.taken); len(changed) == 0 {
		w.tried = nil
		return nil, false
	}
	if !maps.Equal(before, now) {
		return nil, false
	}
	if again = maps.Equal(w.tried, now); again {
		if w.tries++; w.tries%patience != 0 {
			return nil, false
		}
		return changed, true
	}
	w.tried, w.tries = now, 0
	return changed, false
}
