package mslhttp

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// frame makes a frame of a WebSocket, with a key of zeros if it is masked.
func frame(first byte, masked bool, data string) string {
	if masked {
		return string([]byte{first, 0x80 | byte(len(data)), 0, 0, 0, 0}) + data
	}
	return string([]byte{first, byte(len(data))}) + data
}

// TestWebSocketProtocolErrors has clients that break the rules of RFC 6455, and checks the
// status of the close frame.
func TestWebSocketProtocolErrors(t *testing.T) {
	s := httptest.NewServer(&WebSocketHandler{MaxMessage: 100, Serve: func(_ context.Context, conn net.Conn, _ *http.Request) error {
		_, err := io.Copy(io.Discard, conn)
		return err
	}})
	defer s.Close()
	for name, c := range map[string]struct {
		sent string
		want uint16
	}{
		"unmasked":              {frame(0x82, false, "x"), 1002},
		"unmasked ping":         {frame(0x89, false, "x"), 1002},
		"unmasked continuation": {frame(0x02, true, "x") + frame(0x80, false, "x"), 1002},
		"reserved bit":          {frame(0xc2, true, "x"), 1002},
		"unknown opcode":        {frame(0x83, true, "x"), 1002},
		"unknown control":       {frame(0x8b, true, "x"), 1002},
		"nothing to continue":   {frame(0x80, true, "x"), 1002},
		"not continued":         {frame(0x02, true, "x") + frame(0x82, true, "x"), 1002},
		"ping in parts":         {frame(0x09, true, "x"), 1002},
		"long ping":             {"\x89\xfe\x00\x7e\x00\x00\x00\x00" + string(make([]byte, 126)), 1002},
		"negative length":       {"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00", 1002},
		"close of one byte":     {frame(0x88, true, "\x03"), 1002},
		"close with 1005":       {frame(0x88, true, "\x03\xed"), 1002},
		"text":                  {frame(0x81, true, "x"), 1003},
		"too long":              {frame(0x82, true, string(make([]byte, 101))), 1009},
		"normal":                {frame(0x82, true, "x") + frame(0x88, true, "\x03\xe8"), 1000},
	} {
		if got, err := closeStatus(s.Listener.Addr().String(), c.sent); got != c.want {
			t.Errorf("%s: status %d, want %d (%v)", name, got, c.want, err)
		}
	}
}

func closeStatus(addr, sent string) (uint16, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
	in := bufio.NewReader(conn)
	answer, err := http.ReadResponse(in, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		return 0, fmt.Errorf("%v, %w", answer, err)
	}
	if _, err := io.WriteString(conn, sent); err != nil {
		return 0, err
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(in, head); err != nil || head[0] != 0x88 {
		return 0, fmt.Errorf("% x, %w", head, err)
	}
	return binary.BigEndian.Uint16(head[2:]), nil
}

// TestWebSocketServerBreaksRules has a server that sends a frame of an impossible length.
func TestWebSocketServerBreaksRules(t *testing.T) {
	got := make(chan uint16, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		conn, in, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
			base64.StdEncoding.EncodeToString(key[:]))
		head := make([]byte, 8) // with the mask
		if _, err := io.ReadFull(in, head); err != nil {
			t.Error(err)
		}
		got <- binary.BigEndian.Uint16(head[6:]) ^ binary.BigEndian.Uint16(head[2:])
	}))
	defer s.Close()
	conn, err := (&WebSocketDialer{}).Dial(t.Context(), s.URL)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("read %d bytes, %v", n, err)
	}
	conn.Close()
	if status := <-got; status != 1002 {
		t.Errorf("status %d, want 1002", status)
	}
}
