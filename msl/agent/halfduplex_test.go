package agent

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestHalfDuplex serves programs that write a whole request before they read, while the
// answer begins long before that. The system's buffers hold many megabytes.
func TestHalfDuplex(t *testing.T) {
	n := newNetwork(t)
	n.handler.Timeout, n.gate.Timeout = 4*time.Minute, 4*time.Minute
	path := n.serveUnix()
	for _, size := range []int{0, 500_000, 8_000_000} {
		for _, chunked := range []bool{false, true} {
			if chunked && size > 5_000_000 {
				continue
			}
			t.Run(fmt.Sprint(size, chunked), func(t *testing.T) {
				data := make([]byte, size)
				rand.Read(data)
				if got := writeThenRead(t, path, data, chunked); !bytes.Equal(got, data) {
					t.Errorf("%d bytes of %d", len(got), size)
				}
			})
		}
	}
}

// writeThenRead acts like most programs. If chunked is set, it sends the body without
// its length.
func writeThenRead(t *testing.T, socket string, data []byte, chunked bool) []byte {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(4 * time.Minute))
	head, tail := fmt.Sprintf("Content-Length: %d\r\n\r\n", len(data)), ""
	if chunked && len(data) > 0 {
		head, tail = fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", len(data)), "\r\n0\r\n\r\n"
	}
	if _, err := fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: agent\r\n%s%s%s", head, data, tail); err != nil {
		t.Fatalf("request: %v", err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("HTTP %s: %d bytes, %v", response.Status, len(answer), err)
	}
	return answer
}

// TestExample runs docs/examples/upload.py as it is, on a socket and on an address.
func TestExample(t *testing.T) {
	python := need(t, "python3")
	size := 1 << 20
	if os.Getenv("MSL_SOAK") != "" {
		size = 64 << 20
	}
	file := filepath.Join(t.TempDir(), "data")
	data := make([]byte, size)
	rand.Read(data)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	echo := func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	}
	plain, whole := newNetwork(t), newNetwork(t).carries(echo)
	for _, n := range []*network{plain, whole} {
		n.gate.MaxBody, n.handler.MaxBody = -1, 64<<20
	}
	address, _ := strings.CutPrefix(plain.serve().base, "http://")
	for _, place := range []string{strings.TrimSuffix(address, "/"), whole.serveUnix()} {
		got, err := exec.Command(python, filepath.Join("..", "..", "docs", "examples", "upload.py"), place, file).Output()
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes of %d, %v", place, len(got), size, err)
		}
	}
}

// need returns a program, or skips the test that needs it.
func need(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && slices.Contains(strings.Split(os.Getenv("MSL_TEST_REQUIRE"), ","), name) {
		t.Fatalf("MSL_TEST_REQUIRE names %s: %v", name, err)
	} else if err != nil {
		t.Skip(err)
	}
	return path
}
