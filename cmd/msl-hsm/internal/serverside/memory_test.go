package serverside

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
)

const mib = 1 << 20

func TestGrantedMemory(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		want  grant
		fails bool
	}{
		"nothing":   {nil, grant{}, false},
		"a machine": {map[string]string{"proc/meminfo": "MemTotal:       1024 kB\nMemFree: 1 kB\n"}, grant{mib, "machine"}, false},
		"version 2": {map[string]string{
			"proc/meminfo": "MemTotal: 4096 kB\n", "proc/self/cgroup": "0::/system.slice/msl.service\n",
			"sys/fs/cgroup/system.slice/msl.service/memory.max": "2097152\n", "sys/fs/cgroup/system.slice/memory.max": "max\n",
		}, grant{2 * mib, "control group"}, false},
		"version 2, a group above": {map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "3145728\n",
		}, grant{3 * mib, "control group"}, false},
		"version 2, high": {map[string]string{
			"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "2097152\n", "sys/fs/cgroup/memory.high": "1048576\n",
		}, grant{mib, "control group"}, false},
		"version 1": {map[string]string{
			"proc/self/cgroup":                           "5:cpu,cpuacct:/x\n4:memory:/docker/0a1b\n1:name=systemd:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n", "sys/fs/cgroup/memory/docker/0a1b/memory.limit_in_bytes": "1048576\n",
		}, grant{mib, "control group"}, false},
		"version 1 in a container": {map[string]string{
			"proc/self/cgroup": "4:hugetlb,memory:/docker/0a1b\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "1048576\n",
		}, grant{mib, "control group"}, false},
		"version 1 without": {map[string]string{
			"proc/meminfo": "MemTotal: 2048 kB\n", "proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, grant{2 * mib, "machine"}, false},
		"a path out of it": {map[string]string{"proc/self/cgroup": "0::/../..\n", "sys/fs/cgroup/memory.max": "1048576\n"}, grant{mib, "control group"}, false},
		"no number":        {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "much\n"}, grant{}, true},
		"an odd line":      {map[string]string{"proc/self/cgroup": "memory\n:\n"}, grant{}, false},
	} {
		root := t.TempDir()
		for file, text := range test.files {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, root, file, text)
		}
		got, err := grantedMemory(root)
		if got != test.want || (err != nil) != test.fails {
			t.Errorf("%s: %v, %v, want %v", name, got, err, test.want)
		}
	}
}

// TestLimitMemory changes the limits of the process, and puts them back.
func TestLimitMemory(t *testing.T) {
	parts := []memoryPart{{"", 100 * mib, 64 * mib}, {"connections", 200 * mib, 0}, {"proven", 500 * mib, 0}, {"passwords", 256 * mib, 0}}
	for name, test := range map[string]struct {
		env   string
		parts []memoryPart
		grant grant
		limit int64 // of the runtime
		words []string
	}{
		"room enough":   {"", parts, grant{4000 * mib, "control group"}, 1056*mib - moduleMemory, []string{"level=INFO", `worst_case="1056 MiB"`, `limit="3600 MiB"`, `limit_by="control group"`, `proven="500 MiB"`}},
		"too little":    {"", parts, grant{1000 * mib, "control group"}, 900*mib - moduleMemory, []string{"level=WARN", "lower server.limits.proven\"", `limit="900 MiB"`}},
		"far too small": {"", parts, grant{100 * mib, "machine"}, 45 * mib, []string{"level=WARN", "server.limits.proven, server.limits.passwords, server.limits.connections"}},
		"nobody says":   {"", parts, grant{}, 1056*mib - moduleMemory, []string{"level=INFO", "limit=none", "limit_by=none"}},
		"no bound":      {"", append(parts, memoryPart{"connections", -5, 0}), grant{}, math.MaxInt64, []string{"level=WARN", "worst_case=none", "lower server.limits.connections"}},
		"of one's own":  {"700MiB", parts, grant{100 * mib, "machine"}, 700 * mib, []string{"level=WARN", "lower server.limits.proven", `limit="700 MiB" limit_by=GOMEMLIMIT`}},
		"switched off":  {"off", parts, grant{100 * mib, "machine"}, math.MaxInt64, []string{"level=INFO", "limit=none limit_by=GOMEMLIMIT"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GOMEMLIMIT", test.env)
			defer debug.SetMemoryLimit(debug.SetMemoryLimit(math.MaxInt64))
			if test.env == "700MiB" {
				debug.SetMemoryLimit(700 * mib) // as the runtime did at the start
			}
			var log bytes.Buffer
			limitMemory(slog.New(slog.NewTextHandler(&log, nil)), test.parts, test.grant)
			if got := debug.SetMemoryLimit(-1); got != test.limit {
				t.Errorf("limit %d MiB, want %d", got/mib, test.limit/mib)
			}
			for _, want := range test.words {
				if !strings.Contains(log.String(), want) {
					t.Errorf("no %q in %s", want, log.String())
				}
			}
			if strings.Count(log.String(), "\n") != 1 {
				t.Errorf("want one line: %s", log.String())
			}
		})
	}
}

func TestPercentFor(t *testing.T) {
	for alive, want := range map[uint64]int{0: 400, 5 * mib: 400, 32 * mib: 400, 64 * mib: 200, 128 * mib: 100, 300 * mib: 50, 4000 * mib: 50} {
		if got := percentFor(alive); got != want {
			t.Errorf("%d MiB alive: %d, want %d", alive/mib, got, want)
		}
	}
}

// TestMemoryDocs computes the figures of the documentation.
func TestMemoryDocs(t *testing.T) {
	text, err := os.ReadFile("../../../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	parts := func(c *config.Config) []memoryPart {
		return memoryParts(&c.Server, connections(&c.Server, nil), messageLimits(c.Server.Limits))
	}
	told := fmt.Sprintf("worst_case=%q", mebibytes(worstCase(parts(config.Default()))))
	for _, part := range parts(config.Default())[1:] {
		if entry := fmt.Sprintf("%s=%q", part.setting, mebibytes(part.bytes)); !bytes.Contains(text, []byte(entry)) {
			t.Errorf("docs/operations.md does not tell %s", entry)
		}
	}
	if !bytes.Contains(text, []byte(told)) {
		t.Errorf("docs/operations.md does not tell %s", told)
	}
	_, example, _ := strings.Cut(string(text), "server for 512 MiB, say:\n\n```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	c := config.Default()
	if err := config.DecodeYAML("example", []byte(example), c); err != nil || c.Server.Limits.Connections == 0 {
		t.Fatalf("the example: %v", err)
	}
	if worst := worstCase(parts(c)); worst > 512*mib*9/10 {
		t.Errorf("the example takes %s", mebibytes(worst))
	}
}
func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
