package mslhttp

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestExamples runs the services of docs/examples behind a gateway, as they are.
func TestExamples(t *testing.T) {
	for _, c := range []struct {
		tool, name string
		streams    bool // reads what has no Content-Length
	}{
		{"python3", "wsgi.py", false},
		{"python3", "httpserver.py", false},
		{"node", "service.js", true},
		{"go", "service.go", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u := &Upstream{Targets: []Target{target(t, example(t, c.tool, c.name))}, Whole: !c.streams}
			client := noneClient(t, serve(t, &Handler{Handle: (&Gateway{Upstream: u}).Handle, MaxBody: -1}))
			for _, size := range exampleSizes() {
				got, err := ask(t, client, bytes.Repeat([]byte("x"), size))
				want := fmt.Sprintf("device sent %d bytes\n", size)
				if size > defaultBuffer && !c.streams {
					if err == nil || !strings.Contains(err.Error(), "longer than the service") {
						t.Errorf("%d bytes: %q, %v", size, got, err)
					}
				} else if got != want || err != nil {
					t.Errorf("%d bytes: %q, %v", size, got, err)
				}
			}
		})
	}
}

// exampleSizes has the largest one only if there is time.
func exampleSizes() []int {
	sizes := []int{0, 5, 64 << 10, 3 << 20}
	if os.Getenv("MSL_SOAK") != "" {
		sizes = append(sizes, 100<<20)
	}
	return sizes
}

// example starts a service, and returns its URL.
func example(t *testing.T, tool, name string) string {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		if slices.Contains(strings.Split(os.Getenv("MSL_TEST_REQUIRE"), ","), tool) {
			t.Fatalf("MSL_TEST_REQUIRE names %s: %v", tool, err)
		}
		t.Skip(err)
	}
	path := filepath.Join("..", "..", "docs", "examples", name)
	command := exec.Command(tool, path, "0")
	if tool == "go" {
		program := filepath.Join(t.TempDir(), "service")
		if out, err := exec.Command("go", "build", "-o", program, path).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		command = exec.Command(program, "0")
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		command.Process.Kill()
		command.Wait()
	})
	url, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(url)
}

// TestLongBodies passes long bodies both ways. They are never in memory as a whole, even
// if the service is slower than the device, or the device slower than the service.
func TestLongBodies(t *testing.T) {
	size := int64(16 << 20)
	if os.Getenv("MSL_SOAK") != "" {
		size = 100 << 20
	}
	var most atomic.Uint64
	at := service(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(&sampler{most: &most}, r.Body)
		if err != nil || n != size {
			panic(http.ErrAbortHandler)
		}
		io.Copy(&sampler{w, &most, 0}, io.LimitReader(zeros{}, size))
	})
	u := &Upstream{Targets: []Target{at}, Timeout: -1} // however slow the machine is
	c := noneClient(t, serve(t, &Handler{Handle: (&Gateway{Upstream: u}).Handle, MaxBody: -1, Timeout: -1}))
	body := func() (io.ReadCloser, error) { return io.NopCloser(io.LimitReader(zeros{}, size)), nil }
	r, err := c.Do(t.Context(), &msl.Request{Body: body})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if n, err := io.Copy(&sampler{most: &most}, r.Body); n != size || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if heap := most.Load(); heap > 48<<20 {
		t.Errorf("the heap had %d MiB", heap>>20)
	}
	t.Logf("%d MiB both ways, at most %d MiB of heap", size>>20, most.Load()>>20)
}

// zeros is as many zeros as are wanted.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// A sampler watches the live heap while bytes pass.
type sampler struct {
	io.Writer
	most *atomic.Uint64
	n    int
}

func (s *sampler) Write(p []byte) (int, error) {
	if s.n += len(p); s.n > 4<<20 {
		s.n = 0
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		s.most.Store(max(s.most.Load(), stats.HeapAlloc))
	}
	if s.Writer == nil {
		return len(p), nil
	}
	return s.Writer.Write(p)
}
