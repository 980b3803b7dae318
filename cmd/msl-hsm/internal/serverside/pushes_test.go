package serverside

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
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
		w := httptest.NewRecorder()
		server.Handler.ServeHTTP(w, httptest.NewRequest("POST", path, strings.NewReader("news")))
		if w.Code != want {
			t.Errorf("%s: %d %s, want %d", path, w.Code, w.Body, want)
		}
	}
}
