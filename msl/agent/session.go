package agent

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// sessionHeader ends a session. It is a header and not a path, since any path may belong
// to the service.
const sessionHeader = "Msl-Session"

// ends reports whether a request ends a session instead of sending a message.
func ends(r *http.Request) bool { return len(r.Header.Values(sessionHeader)) > 0 }

// answerUnread bounds how long net/http waits for the rest of a request whose answer does not
// depend on it.
func answerUnread(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(linger))
	}
}

// endSession logs a user out, or forgets all tokens.
func (h *Handler) endSession(w http.ResponseWriter, r *http.Request) {
	if err := h.end(r); err != nil {
		refused := h.refusal(err)
		if refused.status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", http.MethodDelete)
		}
		refused.write(w)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (h *Handler) end(r *http.Request) error {
	what, users := r.Header.Values(sessionHeader), r.Header.Values("Msl-User")
	bad := func(err error) error { return &StatusError{Status: http.StatusBadRequest, Err: err} }
	switch {
	case r.Method != http.MethodDelete:
		return &StatusError{Status: http.StatusMethodNotAllowed, Err: errors.New("sessions end by DELETE")}
	case len(what) != 1 || what[0] != "logout" && what[0] != "forget":
		return bad(fmt.Errorf("the header %s must be logout or forget, once", sessionHeader))
	case what[0] == "forget" && len(users) > 0:
		return bad(fmt.Errorf("%s: forget ends the session of all users: to log one out, use logout", sessionHeader))
	case what[0] == "forget":
		return h.Client.Forget(r.Context())
	case len(users) != 1 || users[0] == "":
		return bad(errors.New("the header Msl-User must name the user, once"))
	}
	user, err := url.PathUnescape(users[0])
	if err != nil {
		return bad(errNotEncoded("Msl-User"))
	}
	return h.Client.Logout(r.Context(), user)
}

// errNotEncoded says that a header has no valid percent-encoding.
func errNotEncoded(name string) error {
	return fmt.Errorf("the header %s is not percent-encoded: write %%25 for a percent sign", name)
}
