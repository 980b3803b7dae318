package serverside

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// TestPushQuery posts to a client that sent for ada: what names no user by a mistake goes to
// nobody.
func TestPushQuery(t *testing.T) {
	all := &Pushes{}
	ada := all.join("camera", "ada@example.com")
	defer all.leave(ada)
	go func() {
		for {
			select {
			case p := <-ada.posts:
				p.sent <- nil
			case <-ada.gone:
				return
			}
		}
	}()
	server := all.Server(slog.New(slog.DiscardHandler))
	for path, want := range map[string]int{
		"/camera": http.StatusOK, "/camera?": http.StatusOK, "/camera?user=ada@example.com": http.StatusOK, "/camera?user=ada%40example.com": http.StatusOK,
		"/camera?user=eve": http.StatusNotFound, "/radio": http.StatusNotFound,
		"/camera?user=%zz": http.StatusBadRequest, "/camera?usr=eve": http.StatusBadRequest, "/camera?user=": http.StatusBadRequest,
		"/camera?user=eve&user=ada@example.com": http.StatusBadRequest, "/camera?user=ada@example.com&x": http.StatusBadRequest,
		"/camera?user=a;b": http.StatusBadRequest,
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest("POST", path, strings.NewReader("news"))
		r.Host = "localhost"
		server.Handler.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s: %d %s, want %d", path, w.Code, w.Body, want)
		}
	}
}

// TestPushOrigin posts as a page of a site does that a browser on this machine shows: nothing
// reaches the device. A name is found in either spelling.
func TestPushOrigin(t *testing.T) {
	all := &Pushes{}
	camera := all.join("caméra", "")
	defer all.leave(camera)
	var sent atomic.Int32
	go func() {
		for {
			select {
			case p := <-camera.posts:
				sent.Add(1)
				p.sent <- nil
			case <-camera.gone:
				return
			}
		}
	}()
	server := all.Server(slog.New(slog.DiscardHandler))
	for _, c := range []struct {
		host, name, value string
		want              int
	}{
		{"127.0.0.1:9090", "User-Agent", "curl/8.5.0", http.StatusOK},
		{"127.0.0.1:9090", "Origin", "https://evil.example.com", http.StatusForbidden},
		{"127.0.0.1:9090", "Origin", "null", http.StatusForbidden},
		{"127.0.0.1:9090", "Sec-Fetch-Site", "cross-site", http.StatusForbidden},
		{"127.0.0.1:9090", "User-Agent", "Mozilla/5.0", http.StatusForbidden}, // a form in an old browser
		{"evil.example.com:9090", "Accept", "*/*", http.StatusForbidden},      // DNS rebinding
	} {
		for _, name := range []string{"cam%C3%A9ra", "came%CC%81ra"} {
			r := httptest.NewRequest("POST", "/"+name, strings.NewReader("news"))
			r.Host = c.host
			r.Header.Set(c.name, c.value)
			w := httptest.NewRecorder()
			server.Handler.ServeHTTP(w, r)
			if w.Code != c.want {
				t.Errorf("%+v for %s: %d %s", c, name, w.Code, w.Body)
			}
		}
	}
	if n := sent.Load(); n != 2 {
		t.Errorf("%d messages were pushed", n)
	}
}
