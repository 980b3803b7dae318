package cli

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// capture URL VAR stands between a device and the server at URL, and keeps what
// goes through in request-1, answer-1 and so on.
func capture(ts *testscript.TestScript, _ bool, args []string) {
	var mu sync.Mutex
	count := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		request, _ := io.ReadAll(r.Body)
		answer, err := http.Post(args[0], "application/x-msl+json", bytes.NewReader(request))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		count++
		for name, content := range map[string][]byte{"request": request, "answer": text} {
			if err := os.WriteFile(ts.MkAbs(fmt.Sprintf("%s-%d", name, count)), content, 0o600); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
		w.Write(text)
	}))
	ts.Defer(s.Close)
	ts.Setenv(args[1], s.URL)
}
