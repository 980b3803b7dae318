package mslhttp

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestWantsTLS reads the pages of servers whose port has TLS, and others that mention it.
func TestWantsTLS(t *testing.T) {
	ownEnd, theirEnd := net.Pipe()
	defer theirEnd.Close()
	go func() {
		defer ownEnd.Close()
		(&TLSConn{server: true, wire: &tlsWire{Conn: ownEnd}}).answerPlain(tls.RecordHeaderError{Conn: ownEnd, RecordHeader: [5]byte([]byte("POST "))})
	}()
	own, err := io.ReadAll(theirEnd)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		string(own): true,
		"Client sent an HTTP request to an HTTPS server.\n":                                                             true,
		"<html>\r\n<head><title>400 The plain HTTP request was sent to HTTPS port</title></head>":                       true,
		"<title>400 Bad Request</title><br />\nReason: You're speaking plain HTTP to an SSL-enabled server port.<br />": true,
		"Bad Request\r\nThis combination of host and port requires TLS.\r\n":                                            true,
		`{"error":"the header X-SSL-Client-Cert is missing"}`:                                                           false,
		"<title>400 No required SSL certificate was sent</title>":                                                       false,
		"a TLS terminator must set Forwarded":                                                                           false,
		"":                                                                                                              false,
	} {
		got := statusError(&http.Response{StatusCode: http.StatusBadRequest, Body: io.NopCloser(strings.NewReader(text))})
		if got.WantsTLS != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
