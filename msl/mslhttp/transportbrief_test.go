package mslhttp

import (
	"net"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestTransportBriefErrors has something that is not a server answer megabytes: the error, which
// an agent logs and tells its programs, quotes the beginning.
func TestTransportBriefErrors(t *testing.T) {
	long := strings.Repeat("\u00e9", 1<<18)
	for name, answer := range map[string]string{
		"no header":   "HTTP/1.1 200 OK\r\nX" + long + "\r\n\r\n",
		"no status":   "HTTP/1.1 " + long + "\r\n\r\n",
		"redirection": "HTTP/1.1 307 X\r\nLocation: http://[" + long + "\r\n\r\n",
		"other data":  "HTTP/1.1 200 OK\r\nContent-Type: text/" + long + "\r\nContent-Length: 6\r\n\r\n<html>",
		"busy":        "HTTP/1.1 503 X\r\nRetry-After: " + long + "\r\n\r\n",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go answersAlways(l, answer)
		url := "http://" + l.Addr().String()
		_, errPost := ask(t, noneClient(t, url), []byte("x"))
		_, errDial := (&WebSocketDialer{}).Dial(t.Context(), url)
		for _, err := range []error{errPost, errDial} {
			if err == nil || len(err.Error()) > 2000 || !utf8.ValidString(err.Error()) {
				t.Errorf("%s: %.300v", name, err)
			}
		}
		l.Close()
	}
}
