package httpform

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

// FuzzDecodeRequest: what is read can be written again, and is then read as the same.
func FuzzDecodeRequest(f *testing.F) {
	f.Add([]byte("POST /x?y HTTP/1.1\r\nHost: \r\nContent-Length: 5\r\n\r\nhello"))
	f.Add([]byte("PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.1\r\nHost:\r\nAccept: */*\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := DecodeRequest(io.MultiReader(strings.NewReader(RequestLine), bytes.NewReader(data)))
		if err != nil {
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		form, err := EncodeRequest(r)
		if err != nil {
			t.Fatalf("cannot be written: %v", err)
		}
		text, err := io.ReadAll(form)
		if err != nil {
			t.Fatal(err)
		}
		again, err := DecodeRequest(bytes.NewReader(text))
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		got, err := io.ReadAll(again.Body)
		if err != nil || !bytes.Equal(got, body) || again.Method != r.Method || again.RequestURI != r.RequestURI {
			t.Errorf("%q was read as %+v", text, again)
		}
	})
}

// FuzzDecodeResponse is FuzzDecodeRequest for responses.
func FuzzDecodeResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), false)
	f.Add([]byte("HTTP/1.1 503 \r\nRetry-After: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), false)
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), true)
	f.Fuzz(func(t *testing.T, data []byte, head bool) {
		method := map[bool]string{true: "HEAD", false: "GET"}[head]
		r, err := DecodeResponse(io.MultiReader(strings.NewReader(ResponseLine), bytes.NewReader(data)), method)
		if err != nil {
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		form, err := EncodeResponse(r, method)
		if err != nil {
			t.Fatalf("cannot be written: %v", err)
		}
		text, err := io.ReadAll(form)
		if err != nil {
			t.Fatal(err)
		}
		again, err := DecodeResponse(bytes.NewReader(text), method)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		got, err := io.ReadAll(again.Body)
		if err != nil || !bytes.Equal(got, body) || again.StatusCode != r.StatusCode {
			t.Errorf("%q was read as %+v", text, again)
		}
	})
}
