// Package filewatch notices that files were replaced or changed by looking at them
// repeatedly. This works for renames, for redirected symbolic links (as Kubernetes does
// with ..data), for network file systems, and for files that do not exist yet.
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

// A stamp distinguishes one content of a file from another. That of a missing file is
// zero. Links are followed.
type stamp struct {
	there  bool
	size   int64
	at     time.Time
	device uint64
	file   uint64 // inode
}

// At looks at files. Empty paths are left out.
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

// Of returns how those paths looked; for any not looked at, how they look now.
func (l Look) Of(paths ...string) Look {
	of := At(paths...)
	for path := range of {
		if seen, ok := l[path]; ok {
			of[path] = seen
		}
	}
	return of
}

// Differ returns the paths that differ in another look, in order.
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

// A Watch reloads files that changed. Files and Take must be set.
type Watch struct {
	// Files returns the paths of the files, which may differ each time.
	Files func() []string
	// Take loads the files, of which those with the paths in changed have changed. An
	// error means that they cannot be used as they are. It may then be called again, with
	// again set, though they have not changed since then: the cause may have been
	// elsewhere, and gone.
	Take func(changed []string, again bool) error
	// Every is how often they are looked at. Zero means 5 seconds.
	Every time.Duration

	mu    sync.Mutex
	taken Look // in use
	last  Look
	tried Look // tried without success
	tries int  // looks since then
}

// patience is after how many looks unusable files are tried again.
const patience = 12

// Took records that files are now in use that looked like that before they were read.
func (w *Watch) Took(l Look) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.taken, w.last, w.tried = l, l, nil
}

// Start starts looking. The function that it returns stops that, and waits for a Take
// under way.
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

// Step looks once. Files that changed are taken at the next look if they look the same: a
// file that is still being written is not taken.
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
