package serverside

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/internal/auditlog"
	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
)

// files checks who can read and write what only the server should, and whether there is
// enough space.
func (d *doctor) files() {
	for _, f := range []struct{ setting, path string }{
		{"server.state", d.c.Server.State.Path()}, {"server.enrollment.state", d.c.Server.Enrollment.File()},
	} {
		info, err := os.Stat(f.path)
		switch {
		case f.path == "" || errors.Is(err, os.ErrNotExist): // told of where it is opened
		case err != nil:
			d.say("permissions", Failure, "%s: %s", f.setting, exit.OneLine(err))
		case info.Mode().Perm()&0o077 != 0:
			d.say("permissions", Failure, "%s: %s has mode %#o: chmod 600 %s", f.setting, f.path, info.Mode().Perm(), exit.Quoted(f.path))
		default:
			d.say("permissions", OK, "only its owner can access %s", f.path)
		}
	}
	d.etcdKey()
	if path := d.c.Server.State.Path(); path != "" {
		d.room(filepath.Dir(path))
	}
}

// etcdKey warns if everybody can read the private key for etcd. A group may be meant to.
func (d *doctor) etcdKey() {
	path := d.c.Server.State.Key
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o007 != 0 { // one that is missing is reported where it is read
		d.say("permissions", Warning, "server.state.key: every user of this machine can use the private key %s, which has mode %#o: chmod o= %s", path, info.Mode().Perm(), exit.Quoted(path))
	}
}

// logs checks that the files of logs can be written or made.
func (d *doctor) logs() {
	own := &d.c.Server
	switch own.AccessLog {
	case "", config.AccessNone, config.AccessInLog:
	default:
		d.writable("server.access-log", own.AccessLog)
	}
	if own.Failures.Log != "" {
		d.writable("server.failures.log", own.Failures.Log)
	}
	if own.Audit.File == "" || !d.writable("server.audit.file", own.Audit.File) {
		return
	}
	for _, path := range []string{own.Audit.File, admin.CommandLog(d.c)} {
		if changed, err := auditlog.Examine(path); err != nil {
			d.say(auditName, Failure, "%s", exit.OneLine(afterAuditLog(err)))
		} else if changed {
			d.say(auditName, Warning, "%s was changed: examine it with msl-hsm audit verify, and keep it", path)
		}
	}
}

// writable reports whether a file can be written, or made.
func (d *doctor) writable(setting, path string) bool {
	end, err := atomicfile.End(path)
	if errors.Is(err, atomicfile.ErrForeignLink) {
		d.say(setting, Failure, "%s", exit.OneLine(err))
		return false
	}
	at := cmp.Or(end, path)
	info, err := os.Stat(at)
	if errors.Is(err, os.ErrNotExist) {
		at = filepath.Dir(at)
	} else if err == nil && info.Mode().Type()&(os.ModeDir|os.ModeSocket) != 0 {
		what := map[bool]string{true: "directory", false: "socket"}[info.IsDir()]
		d.say(setting, Failure, "%s is a %s: name a file", path, what)
		return false
	}
	if err = unix.Access(at, unix.W_OK); err != nil {
		err = unwritable(setting, at, err)
	} else if fs := (unix.Statfs_t{}); unix.Statfs(at, &fs) == nil && full(fs) {
		d.say(setting, Warning, "the disk of %s is full, so it cannot grow: free disk space", at)
		return true
	}
	return d.judge(setting, err, "%s can be written", at)
}

// unwritable adds the next step to why nothing can be written at a path.
func unwritable(setting, at string, err error) error {
	err = fmt.Errorf("%s cannot be written: %w", at, err)
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w: make the directory, or choose another path in %s", err, setting)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: change who may write there, choose another path in %s, or run this as the user of the server", err, setting)
	}
	return err // package exit knows what to do
}

// leastRoom is the free disk space that needs no warning.
const leastRoom = 100 << 20

// full reports whether nobody but root can write more to a file system. Pipes and the like have
// no blocks at all.
func full(fs unix.Statfs_t) bool { return fs.Blocks > 0 && fs.Bavail == 0 }

func (d *doctor) room(dir string) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); errors.Is(err, os.ErrNotExist) {
		return // told of where the state is opened
	} else if err != nil {
		d.say("disk", Failure, "%s: %s", dir, err)
		return
	}
	free, verdict := uint64(fs.Bavail)*uint64(fs.Bsize), OK
	if free < leastRoom {
		verdict = Warning
	}
	d.say("disk", verdict, "%d MiB are free in %s", free>>20, dir)
}

// lockedMemory checks that the PIN and passwords are kept out of swap space.
func (d *doctor) lockedMemory() {
	if err := lockedmem.Check(); err != nil {
		d.say("locked memory", Warning, "the PIN and passwords may be written to swap space: %s; allow the server to lock its memory (LimitMEMLOCK=infinity in systemd, ulimit -l unlimited), or use no swap space, or encrypted swap space", exit.OneLine(err))
		return
	}
	d.say("locked memory", OK, "the PIN and passwords are kept out of swap space")
}

// leastFiles is how many open files a server with few devices may need: for its key
// store, state, logs and connections.
const leastFiles = 256

// openFiles checks the limit of open files. Beyond it, connections are refused, and a
// module may report that there are no keys.
func (d *doctor) openFiles() {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		d.say("open files", Failure, "getrlimit: %s", err)
		return
	}
	if limit.Cur < leastFiles {
		d.say("open files", Warning, "a process may have %d: raise that to %d or more (ulimit -n, LimitNOFILE of systemd)", limit.Cur, leastFiles)
		return
	}
	d.say("open files", OK, "a process may have %d", limit.Cur)
}
