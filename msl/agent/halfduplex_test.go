package agent

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestHalfDuplex serves programs that write a whole request before they read, while the
// answer begins long before that. The system's buffers hold many megabytes.
func TestHalfDuplex(t *testing.T) {
	n := newNetwork(t)
	n.handler.Timeout = 4 * time.Minute
	path := n.serveUnix()
	for _, size := range []int{0, 3_000_000, 8_000_000} {
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
