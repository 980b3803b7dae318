package failurelog

import (
	"bytes"
	"net/http"
	"os"
	"testing"
)

// FuzzHandler sends arbitrary data to the endpoint: whatever it accepts is a report, in
// a log that stays readable.
func FuzzHandler(f *testing.F) {
	f.Add(message(f, from("camera-1"), nil, good(f)))
	f.Add(message(f, from("a\nb\x1b"), object{"renewable": true}, []byte("no report")))
	f.Add(message(f, object{"entityauthdata": object{"scheme": "NONE_SUFFIXED", "authdata": object{"root": "a", "suffix": "b"}}}, nil, good(f)))
	f.Add(message(f, object{"mastertoken": object{"tokendata": "AAAA", "signature": "AAAA"}}, nil, good(f)))
	h, path := newHandler(f)
	h.Log.rotation.Size, h.PerSource, h.PerSecond = 1<<60, 1<<30, 1<<30
	h.once.Do(func() { h.inner = h.handler() }) // with neither store nor state: to use one is a panic
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
		w := post(h, data)
		taken := w.Code == http.StatusOK && w.Body.Len() > 0 && answerCode(t, w.Body.Bytes()) == -1
		got := records(t, path)
		if taken != (len(got) > 0) {
			t.Fatalf("HTTP status %d, answer %q, but %d records", w.Code, w.Body.Bytes(), len(got))
		}
		for _, r := range got {
			if r.Proven || r.Entity == "" || r.check() != nil {
				t.Fatalf("got %+v", r)
			}
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Count(text, []byte("\n")) != len(got) || bytes.ContainsFunc(text, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }) {
			t.Fatalf("the log is %q", text)
		}
	})
}

// FuzzSpool starts with an arbitrary spool.
func FuzzSpool(f *testing.F) {
	f.Add([]byte(oneFailure + "\n" + `{"lost":3,"skipped":2}` + "\n"))
	f.Add([]byte("{}\nnull\n[]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := readLines(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		for _, failure := range p.Failures {
			if err := failure.check(); err != nil {
				t.Fatal(err)
			}
		}
		again, err := readLines(bytes.NewReader(p.lines()))
		if err != nil || len(again.Failures) != len(p.Failures) || again.Lost != p.Lost || again.Skipped != p.Skipped {
			t.Fatalf("%+v became %+v, error %v", p, again, err)
		}
	})
}
