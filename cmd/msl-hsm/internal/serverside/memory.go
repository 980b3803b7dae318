package serverside

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
)

// GCPercent lets a server's heap grow to five times its live data. That data is a few
// megabytes, for which the collector would run hundreds of times a second at Go's
// default. It is combined with a total memory limit, near which the collector runs more
// often. GOGC in the environment overrides it.
const (
	GCPercent  = 400
	leastGC    = 50        // for a large live heap
	gcHeadroom = 128 << 20 // bytes of heap growth, unless leastGC permits more
)

// percentFor returns the GC percent for a live heap of that many bytes: password checks
// and large messages must not let the heap grow to five times their size.
func percentFor(alive uint64) int {
	return int(max(leastGC, min(GCPercent, gcHeadroom*100/max(alive, 1))))
}

// A gcCycle is garbage whose collection reveals that the collector ran.
type gcCycle struct{ _ *gcCycle }

// tendHeap sets the GC percent after each collection.
func tendHeap() {
	alive := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	current := 0
	var collected func(*gcCycle)
	collected = func(c *gcCycle) {
		metrics.Read(alive)
		if percent := percentFor(alive[0].Value.Uint64()); percent != current {
			current = percent
			debug.SetGCPercent(percent)
		}
		runtime.SetFinalizer(c, collected)
	}
	collected(&gcCycle{})
}

// Upper bounds for the parts of a server, in bytes. They were measured and rounded up,
// except for TLS, where the bound is what crypto/tls permits in a handshake.
const (
	programMemory    = 64 << 20  // the program, its stacks and pools
	moduleMemory     = 64 << 20  // the PKCS #11 module, and pages of the state file
	connectionMemory = 256 << 10 // buffers of a connection, its HTTP headers, and a small message
	tlsMemory        = 384 << 10 // TLS on it, with a client's certificates
	sessionMemory    = 4 << 10   // a remembered master token
	keysMemory       = 12 << 10  // its keys in the PKCS #11 module
)

// A memoryPart is memory that one setting lets a server use.
type memoryPart struct {
	setting string // empty if no setting changes it
	bytes   int64  // negative means no limit
	outside int64  // the part that the Go runtime does not count
}

// memoryParts returns the most memory that each part of a server may use.
func memoryParts(s *config.Server, bounds *mslhttp.Connections, limits msl.Limits) []memoryPart {
	connections, _ := bounds.Limits()
	limits = limits.Effective()
	each := int64(connectionMemory)
	if len(s.TLS.Certificates) > 0 {
		each += tlsMemory
	}
	sessions := int64(limits.Sessions)
	password := 2 * int64(s.Argon2.Cost().Memory) << 10 // Argon2id for one, and for one checked before (bolt.Server)
	parts := []memoryPart{
		{"", programMemory + moduleMemory, moduleMemory},
		{"connections", int64(connections) * each, 0},
		{"unproven", limits.Unproven, 0},
		{"proven", limits.Proven, 0},
		{"passwords", int64(limits.PasswordsAtATime) * password, 0},
		{"sessions", sessions * (sessionMemory + keysMemory), sessions * keysMemory},
	}
	if s.Enrollment.On() {
		parts[0].bytes += 2 * fleet.EndpointMemory
	}
	return parts
}

// BoundMemory sets the memory limit of this process.
func BoundMemory(s *config.Server, log *slog.Logger, service *Service) {
	granted, err := grantedMemory("/")
	if err != nil {
		log.Warn("a memory limit cannot be read", "error", err)
	}
	limitMemory(log, memoryParts(s, service.Connections, service.MSL.Limits), granted)
	if os.Getenv("GOGC") == "" && debug.SetMemoryLimit(-1) < math.MaxInt64 {
		tendHeap()
	}
}

// worstCase returns the sum of the parts, or a negative number if there is no limit.
func worstCase(parts []memoryPart) (sum int64) {
	for _, part := range parts {
		if part.bytes < 0 {
			return -1
		}
		sum += part.bytes
	}
	return sum
}

// limitMemory gives the Go runtime a limit: GOMEMLIMIT if it is set, otherwise what the
// system grants minus a tenth, or the worst case if that is lower. It logs all of these.
func limitMemory(log *slog.Logger, parts []memoryPart, granted grant) {
	worst := worstCase(parts)
	limit, source := debug.SetMemoryLimit(-1), "GOMEMLIMIT"
	if os.Getenv("GOMEMLIMIT") == "" {
		limit, source = math.MaxInt64, "none"
		if granted.bytes > 0 {
			limit, source = granted.bytes-granted.bytes/10, granted.by
		}
		debug.SetMemoryLimit(runtimeLimit(limit, parts))
	}
	attrs := []slog.Attr{slog.String("worst_case", mebibytes(worst)), slog.String("limit", mebibytes(limit)), slog.String("limit_by", source)}
	for _, part := range parts {
		if part.setting != "" {
			attrs = append(attrs, slog.String(part.setting, mebibytes(part.bytes)))
		}
	}
	level, what := slog.LevelInfo, "memory"
	if worst < 0 || worst > limit {
		level, what = slog.LevelWarn, "memory may not suffice: "+advise(parts, limit)
	}
	log.LogAttrs(context.Background(), level, what, attrs...)
}

// runtimeLimit converts a limit to one for the memory that the Go runtime counts.
func runtimeLimit(limit int64, parts []memoryPart) int64 {
	if worst := worstCase(parts); worst >= 0 && worst < limit {
		limit = worst
	}
	if limit == math.MaxInt64 {
		return limit
	}
	outside := int64(0)
	for _, part := range parts {
		outside += part.outside
	}
	return max(limit-outside, limit/2)
}

// advise names the settings to lower: the largest ones, as many as matter.
func advise(parts []memoryPart, limit int64) string {
	parts = slices.DeleteFunc(slices.Clone(parts), func(p memoryPart) bool { return p.setting == "" })
	slices.SortStableFunc(parts, func(a, b memoryPart) int {
		return int(max(min(size(b.bytes)-size(a.bytes), 1), -1))
	})
	var names []string
	excess := size(worstCase(parts)) - limit
	for _, part := range parts {
		names = append(names, "server.limits."+part.setting)
		if excess -= size(part.bytes) / 2; excess <= 0 {
			break
		}
	}
	return "lower " + strings.Join(names, ", ")
}

// size returns a number of bytes for comparison: no limit counts as the largest.
func size(bytes int64) int64 {
	if bytes < 0 {
		return math.MaxInt64 / 2
	}
	return bytes
}

func mebibytes(n int64) string {
	if n < 0 || n == math.MaxInt64 {
		return "none"
	}
	return fmt.Sprintf("%d MiB", (n+1<<20-1)>>20)
}

// A grant is the memory that the system allows this process. Zero means no known limit.
type grant struct {
	bytes int64
	by    string
}

// grantedMemory returns the lowest limit of this process's control groups, versions 1
// and 2, and the memory of the machine. root is the root of the file system.
func grantedMemory(root string) (granted grant, err error) {
	least := func(by, file string, read func(string) (int64, error)) {
		n, failed := read(filepath.Join(root, file))
		if failed != nil && !errors.Is(failed, fs.ErrNotExist) {
			err = errors.Join(err, failed)
		}
		if n > 0 && (granted.bytes == 0 || n < granted.bytes) {
			granted = grant{n, by}
		}
	}
	least("machine", "proc/meminfo", readMemTotal)
	groups, failed := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if failed != nil && !errors.Is(failed, fs.ErrNotExist) {
		err = errors.Join(err, failed)
	}
	for line := range strings.Lines(string(groups)) { // hierarchy:controllers:path, see cgroups(7)
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) < 3 {
			continue
		}
		mount, files := "sys/fs/cgroup/memory", []string{"memory.limit_in_bytes"}
		if fields[1] == "" {
			mount, files = "sys/fs/cgroup", []string{"memory.max", "memory.high"}
		} else if !slices.Contains(strings.Split(fields[1], ","), "memory") {
			continue
		}
		for dir := path.Join("/", fields[2]); ; dir = path.Dir(dir) { // a container may see its own group as the root
			for _, file := range files {
				least("control group", path.Join(mount, dir, file), readLimit)
			}
			if dir == "/" {
				break
			}
		}
	}
	return granted, err
}

// unlimited is more than any machine has: control groups of version 1 report such a
// number if there is no limit.
const unlimited = 1 << 60

// readLimit reads the limit of a control group. Zero means none.
func readLimit(file string) (int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	word := strings.TrimSpace(string(text))
	if word == "max" {
		return 0, nil
	}
	n, err := strconv.ParseInt(word, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", file, err)
	}
	if n >= unlimited {
		return 0, nil
	}
	return n, nil
}

// readMemTotal reads the machine's total memory (proc_meminfo(5)).
func readMemTotal(file string) (int64, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "MemTotal:" {
			continue
		}
		n, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		return n << 10, nil
	}
	return 0, nil
}
