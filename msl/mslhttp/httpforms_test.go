package mslhttp

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
)

// chunked splits a body into chunks of that size, with an extension, and ends it with a
// trailer (RFC 9112, section 7.1).
func chunked(body string, size int) string {
	var b strings.Builder
	for ; len(body) > size; body = body[size:] {
		fmt.Fprintf(&b, "%X;name=\"value\"\r\n%s\r\n", size, body[:size])
	}
	fmt.Fprintf(&b, "%x\r\n%s\r\n0\r\nX-Sum: 1\r\n\r\n", len(body), body)
	return b.String()
}

// TestHTTPForms sends a message in forms that HTTP allows and few clients use: it is read to
// its end, answered once, and followed by the next request where the connection stays.
func TestHTTPForms(t *testing.T) {
	message := noneMessage("headerdata", headerInside) + noneChunk(lastInside)
	post := func(version, fields, body string) string {
		return "POST / HTTP/" + version + "\r\nHost: x\r\n" + fields + "\r\n" + body
	}
	sized := func(body string) string { return fmt.Sprintf("Content-Length: %d\r\n", len(body)) }
	const split = "Transfer-Encoding: chunked\r\n"
	plain := post("1.1", sized(message), message)
	for name, c := range map[string]struct {
		parts []string // each is sent when what came before was answered, also by 100
		want  string   // statuses; those of whole answers in brackets
	}{
		"twice in a row":                  {[]string{plain + plain}, "[200] [200] "},
		"single bytes, with trailers":     {[]string{post("1.1", split, chunked(message, 1)) + plain}, "[200] [200] "},
		"a header for trailers":           {[]string{post("1.1", split+"Trailer: X-Sum\r\nTE: trailers\r\n", chunked(message, 100)) + plain}, "[200] [200] "},
		"expecting to continue":           {[]string{post("1.1", sized(message)+"Expect: 100-continue\r\n", ""), message + plain}, "100 [200] [200] "},
		"expecting to continue, chunked":  {[]string{post("1.1", split+"Expect: 100-Continue\r\n", ""), chunked(message, 50) + plain}, "100 [200] [200] "},
		"expecting, and not waiting":      {[]string{post("1.1", sized(message)+"Expect: 100-continue\r\n", message) + plain}, "100 [200] [200] "},
		"expecting something else":        {[]string{post("1.1", sized(message)+"Expect: miracles\r\n", "")}, "417 "},
		"HTTP/1.0":                        {[]string{post("1.0", sized(message), message)}, "[200] "},
		"HTTP/1.0, kept":                  {[]string{post("1.0", sized(message)+"Connection: keep-alive\r\n", message) + plain}, "[200] [200] "},
		"absolute target":                 {[]string{strings.Replace(plain, "POST / ", "POST http://x/ ", 1)}, "[200] "},
		"of an odd media type":            {[]string{post("1.1", sized(message)+"Content-Type: text/html; charset=utf-16\r\n", message)}, "[200] "},
		"data after the message":          {[]string{post("1.1", sized(message+"\n{]"), message+"\n{]") + plain}, "[200] [200] "},
		"a second message in one request": {[]string{post("1.1", sized(message+message), message+message) + plain}, "[200] [200] "},
		"no last chunk":                   {[]string{post("1.1", split, fmt.Sprintf("%x\r\n%s\r\n", len(message), message))}, "[200] "},
		"a bad length of a chunk":         {[]string{post("1.1", split, "x\r\n"+message)}, "200 "},
		"no length":                       {[]string{post("1.1", "", message)}, "200 "},
		"two lengths":                     {[]string{post("1.1", sized(message)+sized(message+"x"), message)}, "400 "},
		"compressed for HTTP":             {[]string{post("1.1", split+"Transfer-Encoding: gzip\r\n", "")}, "501 "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := serve(t, &Handler{Timeout: 30 * time.Second, Handle: func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
				_, err := io.Copy(w, m.Body)
				return err
			}})
			if got := statuses(t, strings.TrimPrefix(url, "http://"), c.parts, strings.Count(c.want, " ")); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// statuses sends the parts of a connection, and returns the first n statuses that come back.
func statuses(t *testing.T, address string, parts []string, n int) (all string) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	in := bufio.NewReader(c)
	for i := range n {
		if i < len(parts) {
			io.WriteString(c, parts[i])
		}
		all += nextStatus(t, in)
	}
	return all
}

// nextStatus is the status of the next response, in brackets if that has all the data.
func nextStatus(t *testing.T, in *bufio.Reader) string {
	r, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	if strings.Contains(string(body), "payload") {
		return fmt.Sprintf("[%d] ", r.StatusCode)
	}
	return fmt.Sprintf("%d ", r.StatusCode)
}
