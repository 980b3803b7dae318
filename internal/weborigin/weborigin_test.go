package weborigin

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		host, name, value string
		strict            bool
		want              error
	}{
		{host: "127.0.0.1:9090", strict: true},
		{host: "localhost", name: "User-Agent", value: "curl/8.5.0", strict: true},
		{host: "LOCALHOST:1"}, {host: "[::1]:80"}, {host: "[::1]"}, {host: "127.9.9.9"},
		{host: "evil.example.com", want: ErrHost}, {host: "localhost.", want: ErrHost}, {host: "", want: ErrHost},
		{host: "192.0.2.1:80", want: ErrHost}, {host: "localhost.evil.example.com", want: ErrHost}, {host: "0.0.0.0", want: ErrHost},
		{host: "localhost", name: "Origin", value: "http://localhost", want: ErrPage},
		{host: "localhost", name: "Origin", want: ErrPage},
		{host: "localhost", name: "Sec-Fetch-Site", value: "none", want: ErrPage},
		{host: "localhost", name: "Access-Control-Request-Method", value: "POST", want: ErrPage},
		{host: "localhost", name: "User-Agent", value: "Mozilla/5.0", want: ErrPage, strict: true},
		{host: "localhost", name: "Referer", value: "http://localhost/", want: ErrPage, strict: true},
		{host: "localhost", name: "User-Agent", value: "Mozilla/5.0"},
	} {
		r := httptest.NewRequest("POST", "/", nil)
		if r.Host = c.host; c.name != "" {
			r.Header[c.name] = []string{c.value}
		}
		if err := Check(r, c.strict); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c, err)
		}
		ctx := context.WithValue(r.Context(), http.LocalAddrContextKey, &net.UnixAddr{Name: "s", Net: "unix"})
		of := fromPage(r.Header) // the only thing that counts at a socket
		if err := Check(r.WithContext(ctx), c.strict); (err != nil) != of {
			t.Errorf("%+v at a socket: %v", c, err)
		}
	}
}
