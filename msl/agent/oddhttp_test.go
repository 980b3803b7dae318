package agent

import (
	"net/http"
	"strings"
	"testing"
)

// TestOddHTTP sends requests as hand-made programs write them: they are answered, or refused
// with a status, and what follows one of unclear length is not taken for another one.
func TestOddHTTP(t *testing.T) {
	n := newNetwork(t)
	n.handler.MaxBody = 1000
	n.serve()
	n.echoes("a session")
	const host, end = "Host: localhost\r\n", "Connection: close\r\n\r\n"
	const head = "POST / HTTP/1.1\r\n" + host
	for name, test := range map[string]struct{ sent, want, body string }{
		"Expect":                  {head + "Expect: 100-continue\r\nContent-Length: 3\r\n" + end + "abc", "100 Continue", "abc"},
		"Expect, too long":        {head + "Expect: 100-continue\r\nContent-Length: 5000\r\n" + end, "413 ", "1000 bytes"},
		"Expect, in capitals":     {head + "Expect: 100-CONTINUE\r\nContent-Length: 3\r\n" + end + "abc", "100 Continue", "abc"},
		"another Expect":          {head + "Expect: a miracle\r\nContent-Length: 3\r\n" + end + "abc", "417 ", ""},
		"chunks":                  {head + "Transfer-Encoding: chunked\r\n" + end + "2;x=y\r\nab\r\n01\r\nc\r\n0\r\n\r\n", "200 OK", "abc"},
		"chunks and trailers":     {head + "Transfer-Encoding: Chunked\r\nTrailer: X\r\n" + end + "3\r\nabc\r\n0\r\nX: y\r\n\r\n", "200 OK", "abc"},
		"chunks too long":         {head + "Transfer-Encoding: chunked\r\n" + end + "7d0\r\n" + strings.Repeat("x", 2000) + "\r\n0\r\n\r\n", "413 ", "1000 bytes"},
		"a chunk of 2^64":         {head + "Transfer-Encoding: chunked\r\n" + end + "10000000000000000\r\nabc\r\n0\r\n\r\n", "400 ", "broke off"},
		"chunks and a length":     {head + "Transfer-Encoding: chunked\r\nContent-Length: 9\r\n" + end + "3\r\nabc\r\n0\r\n\r\n", "200 OK", "abc"},
		"compressed":              {head + "Transfer-Encoding: gzip\r\n" + end, "501 ", ""},
		"two lengths":             {head + "Content-Length: 3\r\nContent-Length: 4\r\n" + end + "abcd", "400 ", ""},
		"one length twice":        {head + "Content-Length: 3\r\nContent-Length: 3\r\n" + end + "abc", "200 OK", "abc"},
		"a length below zero":     {head + "Content-Length: -1\r\n" + end + "abc", "400 ", ""},
		"a length with a sign":    {head + "Content-Length: +3\r\n" + end + "abc", "400 ", ""},
		"a length in hexadecimal": {head + "Content-Length: 0x3\r\n" + end + "abc", "400 ", ""},
		"a length of 2^64":        {head + "Content-Length: 18446744073709551616\r\n" + end + "abc", "400 ", ""},
		"no length":               {head + end + "abc", "200 OK", ""},
		"two requests":            {head + "Content-Length: 3\r\n\r\nabc" + head + "Content-Length: 3\r\n" + end + "def", "200 OK", "def"},
		"HTTP/1.0":                {"POST / HTTP/1.0\r\n" + host + "Content-Length: 3\r\n\r\nabc", "200 OK", "abc"},
		"HTTP/1.0, no length":     {"POST / HTTP/1.0\r\n" + host + "\r\nabc", "200 OK", ""},
		"HTTP/1.0, no host":       {"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", "403 ", "host"},
		"HTTP/1.1, no host":       {"POST / HTTP/1.1\r\nContent-Length: 3\r\n" + end + "abc", "400 ", ""},
		"two hosts":               {head + host + "Content-Length: 3\r\n" + end + "abc", "400 ", ""},
		"HTTP/2":                  {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "403 ", "another host"},
		"HTTP/3":                  {"POST / HTTP/3.0\r\n" + host + end, "505 ", ""},
		"a whole URI":             {"POST http://localhost/ HTTP/1.1\r\n" + host + "Content-Length: 3\r\n" + end + "abc", "200 OK", "abc"},
		"another one's URI":       {"POST http://example.com/ HTTP/1.1\r\n" + host + "Content-Length: 3\r\n" + end + "abc", "403 ", "host"},
		"an asterisk":             {"OPTIONS * HTTP/1.1\r\n" + host + end, "200 ", ""},
		"a method in small":       {"post / HTTP/1.1\r\n" + host + "Content-Length: 3\r\n" + end + "abc", "405 ", "by POST"},
		"CONNECT":                 {"CONNECT localhost:80 HTTP/1.1\r\n" + host + end, "405 ", "by POST"},
		"a folded header":         {head + "Msl-User: ada@example.com,\r\n root\r\nContent-Length: 3\r\n" + end + "abc", "403 ", ""},
		"a space before a colon":  {head + "Content-Length : 3\r\n" + end + "abc", "400 ", ""},
		"a zero in a header":      {head + "Msl-User: a\x00b\r\n" + end, "400 ", ""},
		"lines without CR":        {strings.ReplaceAll(head+"Content-Length: 3\r\n"+end, "\r", "") + "abc", "200 OK", "abc"},
		"a large header":          {head + "X: " + strings.Repeat("x", 2*http.DefaultMaxHeaderBytes) + "\r\n" + end, "431 ", ""},
		"unsent, another host":    {"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 3\r\n\r\n", "403 ", "host"},
		"unsent, no session":      {"DELETE / HTTP/1.1\r\n" + host + "Msl-Session: end\r\nTransfer-Encoding: chunked\r\n\r\n", "400 ", "logout or forget"},
		"TLS":                     {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400 ", ""},
	} {
		t.Run(name, func(t *testing.T) {
			answer := exchangeRaw(t, n.address(), test.sent)
			_, status, _ := strings.Cut(strings.SplitN(answer, "\r\n", 2)[0], " ")
			if !strings.HasPrefix(status, test.want) || !strings.Contains(answer, test.body) {
				t.Errorf("got %.600q", answer)
			}
		})
	}
	n.echoes("and all goes on")
}
