package httpform

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
)

// encode writes a form, with a body that comes in pieces.
func encode(t *testing.T, form io.Reader, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(form)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func newRequest(t *testing.T, method, target string, length int64, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, "http://service"+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Host, r.ContentLength = "", length
	if length == 0 {
		r.Body = http.NoBody
	}
	return r
}

// TestBytes has the exact bytes of forms.
func TestBytes(t *testing.T) {
	r := newRequest(t, "PUT", "/a%20b?c=d", 5, "hello")
	r.Header = http.Header{"Accept": {"text/plain"}, "Content-Length": {"7"}, "Host": {"x"}, "X-B": {"1", "2"}}
	form, err := EncodeRequest(r)
	want := RequestLine + "PUT /a%20b?c=d HTTP/1.1\r\nHost: \r\nAccept: text/plain\r\nX-B: 1\r\nX-B: 2\r\nContent-Length: 5\r\n\r\nhello"
	if got := encode(t, form, err); got != want {
		t.Errorf("%q\nwant %q", got, want)
	}
	form, err = EncodeRequest(newRequest(t, "POST", "/", -1, "hello"))
	want = RequestLine + "POST / HTTP/1.1\r\nHost: \r\nTransfer-Encoding: chunked\r\n\r\n00000005\r\nhello\r\n0\r\n\r\n"
	if got := encode(t, form, err); got != want {
		t.Errorf("%q\nwant %q", got, want)
	}
	for _, c := range []struct {
		method string
		status int
		length int64
		want   string
	}{
		{"GET", 200, 2, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"},
		{"GET", 404, -1, "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n00000002\r\nok\r\n0\r\n\r\n"},
		{"HEAD", 200, 2, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"},
		{"HEAD", 200, -1, "HTTP/1.1 200 OK\r\n\r\n"},
		{"GET", 204, 2, "HTTP/1.1 204 No Content\r\n\r\n"},
		{"GET", 304, 2, "HTTP/1.1 304 Not Modified\r\n\r\n"},
		{"POST", 299, 0, "HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n"},
	} {
		form, err := EncodeResponse(&http.Response{StatusCode: c.status, ContentLength: c.length, Body: io.NopCloser(strings.NewReader("ok"))}, c.method)
		if got := encode(t, form, err); got != ResponseLine+c.want {
			t.Errorf("%q\nwant %q", got, c.want)
		}
	}
}

// TestRoundTrip writes and reads bodies of all sizes, in pieces of all sizes.
func TestRoundTrip(t *testing.T) {
	for _, size := range []int{0, 1, 5, 511, 512, 4096, 65536, 1 << 20} {
		body := strings.Repeat("0123456789abcdef", size/16+1)[:size]
		for _, length := range []int64{-1, int64(size)} {
			for name, slow := range map[string]func(io.Reader) io.Reader{"whole": same, "bytes": iotest.OneByteReader, "halves": iotest.HalfReader, "eof": iotest.DataErrReader} {
				t.Run(fmt.Sprint(size, length, name), func(t *testing.T) {
					if name == "bytes" && size > 5000 {
						t.Skip("slow")
					}
					r := newRequest(t, "POST", "/x", length, body)
					r.Body = io.NopCloser(slow(strings.NewReader(body)))
					form, err := EncodeRequest(r)
					if err != nil {
						t.Fatal(err)
					}
					if name == "eof" { // it would lose data that comes with an error
						slow = same
					}
					got, err := DecodeRequest(slow(form))
					if err != nil {
						t.Fatal(err)
					}
					text, err := io.ReadAll(got.Body)
					if err != nil || string(text) != body || got.ContentLength != length {
						t.Errorf("%d bytes of %d, length %d, %v", len(text), size, got.ContentLength, err)
					}
					back, err := EncodeResponse(&http.Response{StatusCode: 200, ContentLength: length, Body: io.NopCloser(slow(strings.NewReader(body)))}, "GET")
					if err != nil {
						t.Fatal(err)
					}
					response, err := DecodeResponse(slow(back), "GET")
					if err != nil {
						t.Fatal(err)
					}
					if text, err := io.ReadAll(response.Body); err != nil || string(text) != body {
						t.Errorf("response: %d bytes of %d, %v", len(text), size, err)
					}
				})
			}
		}
	}
}

func same(r io.Reader) io.Reader { return r }

// TestRefusesRequests has what two parsers could read in two ways.
func TestRefusesRequests(t *testing.T) {
	const head = "POST /x HTTP/1.1\r\nHost: \r\n"
	for name, form := range map[string]string{
		"two lengths":        head + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"same length twice":  head + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
		"lengths in a list":  head + "Content-Length: 2, 2\r\n\r\nab",
		"length and chunks":  head + "Content-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
		"signed length":      head + "Content-Length: +2\r\n\r\nab",
		"negative length":    head + "Content-Length: -2\r\n\r\nab",
		"long length":        head + "Content-Length: 99999999999999999999\r\n\r\nab",
		"coding in a list":   head + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"coding twice":       head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"identity":           head + "Transfer-Encoding: identity\r\n\r\n",
		"capital":            head + "Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
		"obs-fold":           head + "A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
		"fold at once":       "POST /x HTTP/1.1\r\n Host: x\r\nHost: \r\n\r\n",
		"bare LF":            "POST /x HTTP/1.1\nHost: \n\n",
		"bare LF in a line":  head + "A: b\nContent-Length: 2\r\n\r\nab",
		"bare CR":            head + "A: b\rContent-Length: 2\r\n\r\nab",
		"bare CR in line":    "POST /x\r HTTP/1.1\r\nHost: \r\n\r\n",
		"space before colon": head + "Content-Length : 2\r\n\r\nab",
		"space in a name":    head + "A b: c\r\n\r\n",
		"tab in a name":      head + "A\t: c\r\n\r\n",
		"empty name":         head + ": c\r\n\r\n",
		"no colon":           head + "abc\r\n\r\n",
		"NUL":                head + "A: b\x00c\r\n\r\n",
		"name of bytes":      head + "\xff\xfe: b\r\n\r\n",
		"no host":            "POST /x HTTP/1.1\r\n\r\n",
		"two hosts":          head + "Host: y\r\n\r\n",
		"HTTP/1.0":           "POST /x HTTP/1.0\r\nHost: \r\n\r\n",
		"HTTP/2":             "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"two spaces":         "POST  /x HTTP/1.1\r\nHost: \r\n\r\n",
		"space at the end":   "POST /x HTTP/1.1 \r\nHost: \r\n\r\n",
		"space in target":    "POST /x y HTTP/1.1\r\nHost: \r\n\r\n",
		"tab in target":      "POST /x\ty HTTP/1.1\r\nHost: \r\n\r\n",
		"absolute form":      "GET http://other/x HTTP/1.1\r\nHost: \r\n\r\n",
		"authority form":     "CONNECT other:80 HTTP/1.1\r\nHost: \r\n\r\n",
		"asterisk form":      "OPTIONS * HTTP/1.1\r\nHost: \r\n\r\n",
		"fragment":           "GET /x#y HTTP/1.1\r\nHost: \r\n\r\n",
		"bytes in target":    "GET /\xff HTTP/1.1\r\nHost: \r\n\r\n",
		"wrong escape":       "GET /%zz HTTP/1.1\r\nHost: \r\n\r\n",
		"no method":          " /x HTTP/1.1\r\nHost: \r\n\r\n",
		"method of a header": "A: b /x HTTP/1.1\r\nHost: \r\n\r\n",
		"more after it":      head + "Content-Length: 0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
		"more after GET":     "GET /x HTTP/1.1\r\nHost: \r\n\r\nx",
		"many fields":        head + strings.Repeat("A: b\r\n", mostFields) + "\r\n",
		"a long head":        head + "A: " + strings.Repeat("b", 64<<10) + "\r\n\r\n",
		"endless head":       head + strings.Repeat("A: "+strings.Repeat("b", 4090)+"\r\n", 20),
		"endless line":       strings.Repeat("b", 70000),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := DecodeRequest(strings.NewReader(RequestLine + form))
			var malformed *FormError
			if !errors.As(err, &malformed) {
				t.Errorf("read as %+v, error %v", got, err)
			}
		})
	}
}

// TestRefusesResponses is TestRefusesRequests for responses.
func TestRefusesResponses(t *testing.T) {
	for name, form := range map[string]string{
		"interim":         "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"upgrade":         "HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"status 0":        "HTTP/1.1 000 x\r\nContent-Length: 0\r\n\r\n",
		"status 20":       "HTTP/1.1 20 x\r\nContent-Length: 0\r\n\r\n",
		"status 2000":     "HTTP/1.1 2000 x\r\nContent-Length: 0\r\n\r\n",
		"status +20":      "HTTP/1.1 +20 x\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.0":        "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
		"no reason":       "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
		"until the end":   "HTTP/1.1 200 OK\r\n\r\nabc",
		"split":           "HTTP/1.1 200 OK\r\nA: b\nC: d\r\nContent-Length: 0\r\n\r\n",
		"two lengths":     "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"two framings":    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"body after 204":  "HTTP/1.1 204 No Content\r\n\r\nab",
		"body after 304":  "HTTP/1.1 304 Not Modified\r\n\r\nab",
		"after the end":   "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
		"many fields":     "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", mostFields+1) + "Content-Length: 0\r\n\r\n",
		"body after HEAD": "HEAD",
	} {
		t.Run(name, func(t *testing.T) {
			method := "GET"
			if form == "HEAD" {
				method, form = "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"
			}
			got, err := DecodeResponse(strings.NewReader(ResponseLine+form), method)
			var malformed *FormError
			if !errors.As(err, &malformed) {
				t.Errorf("read as %+v, error %v", got, err)
			}
		})
	}
}

// TestCut cuts forms off at every place: none is taken for a whole one, and the last byte
// of a body with a length does not come out before its end is known.
func TestCut(t *testing.T) {
	for _, message := range []string{
		"POST /x HTTP/1.1\r\nHost: \r\nContent-Length: 5\r\n\r\nhello",
		"POST /x HTTP/1.1\r\nHost: \r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"POST /x HTTP/1.1\r\nHost: \r\n\r\n",
	} {
		form := RequestLine + message
		for n := range len(form) {
			r, err := DecodeRequest(strings.NewReader(form[:n]))
			if n < len(RequestLine) != (err == ErrOther) {
				t.Errorf("cut after %d: %v", n, err)
			}
			if err != nil {
				continue
			}
			if text, err := io.ReadAll(r.Body); err == nil {
				t.Errorf("cut after %d: %q, %v", n, text, err)
			}
		}
		broken := errors.New("broken")
		data := io.MultiReader(strings.NewReader(form), iotest.ErrReader(broken))
		r, err := DecodeRequest(data)
		if err == nil {
			var text []byte
			text, err = io.ReadAll(r.Body)
			if len(text) == len("hello") && r.ContentLength > 0 {
				t.Errorf("%q came out before the data ended", text)
			}
		}
		if err != broken {
			t.Errorf("the data does not end: %v", err)
		}
	}
	r, err := DecodeRequest(strings.NewReader(RequestLine + "POST /x HTTP/1.1\r\nHost: \r\nContent-Length: 5\r\n\r\nhello!"))
	if err != nil {
		t.Fatal(err)
	}
	var malformed *FormError
	if text, err := io.ReadAll(r.Body); !errors.As(err, &malformed) || len(text) == 5 {
		t.Errorf("a longer one: %q, %v", text, err)
	}
}

// TestCutBodies has bodies that break off: so do their forms.
func TestCutBodies(t *testing.T) {
	broken := errors.New("broken")
	for length, want := range map[int64]error{-1: broken, 10: broken, 3: errLength} {
		r := newRequest(t, "POST", "/", length, "")
		r.Body = io.NopCloser(io.MultiReader(strings.NewReader("hello"), iotest.ErrReader(broken)))
		form, err := EncodeRequest(r)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(form)
		if !errors.Is(err, want) || strings.HasSuffix(string(text), "0\r\n\r\n") {
			t.Errorf("length %d: %q, %v", length, text, err)
		}
	}
	form, err := EncodeRequest(newRequest(t, "POST", "/", 6, "hello"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(form); err != io.ErrUnexpectedEOF {
		t.Errorf("a body that is short: %v", err)
	}
}

// TestNotEncoded has messages that are not written, since they could not be read.
func TestNotEncoded(t *testing.T) {
	for name, r := range map[string]*http.Request{
		"method": {Method: "GE T", RequestURI: "/"}, "target": {Method: "GET", RequestURI: "http://x/"}, "break": {Method: "GET", RequestURI: "/\r\nA:b"},
		"host": {Method: "GET", RequestURI: "/", Host: "a\r\nb: c"}, "fields": {Method: "GET", RequestURI: "/", Header: http.Header{"A": make([]string, 300)}},
		"control": {Method: "GET", RequestURI: "/", Header: http.Header{"A": {"b\x00"}}},
	} {
		if form, err := EncodeRequest(r); err == nil {
			t.Errorf("%s: %v", name, form)
		}
	}
	for _, status := range []int{0, 99, 100, 101, 1000} {
		if _, err := EncodeResponse(&http.Response{StatusCode: status}, "GET"); err == nil {
			t.Errorf("status %d was written", status)
		}
	}
	split := &http.Response{StatusCode: 200, Header: http.Header{"A": {"b\r\nMsl-Error: server"}}}
	form, err := EncodeResponse(split, "GET")
	if text := encode(t, form, err); strings.Contains(text, "\nMsl") {
		t.Errorf("%q", text)
	}
}

func TestIsRequest(t *testing.T) {
	for text, want := range map[string][2]bool{
		"": {false, false}, "x": {false, true}, RequestLine[:20]: {false, false}, RequestLine: {true, true}, RequestLine + "GET": {true, true},
		ResponseLine: {false, true}, ResponseLine[:60]: {false, true}, strings.ToLower(RequestLine): {false, true},
	} {
		if is, known := IsRequest([]byte(text)); is != want[0] || known != want[1] {
			t.Errorf("%q: %v, %v", text, is, known)
		}
	}
}

func TestEndToEnd(t *testing.T) {
	h := http.Header{}
	for _, name := range []string{"Connection", "Keep-Alive", "Proxy-Authorization", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length", "Host", "Expect",
		"Msl-Entity", "Msl_User", "X-Named", "Accept"} {
		h.Set(name, "x")
	}
	h["msl-scheme"] = []string{"x"}
	h["MSL_ENTITY"] = []string{"x"}
	h.Set("Connection", "close, x-named")
	if got := EndToEnd(h); len(got) != 1 || got.Get("Accept") != "x" {
		t.Errorf("%v", got)
	}
	if len(h) != 16 {
		t.Error("the header was changed")
	}
}
