package agent

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// The paths at which programs end sessions, by DELETE.
const (
	sessionPath = "/session"      // all tokens are forgotten
	userPath    = "/session/user" // the user of the header Msl-User is logged out
)

// ends reports whether a request ends a session, rather than to send a message.
func ends(r *http.Request) bool { return r.URL.Path == sessionPath || r.URL.Path == userPath }

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
	users := r.Header.Values("Msl-User")
	switch {
	case r.Method != http.MethodDelete:
		return &StatusError{Status: http.StatusMethodNotAllowed, Err: fmt.Errorf("sessions end by DELETE")}
	case r.URL.RawQuery != "":
		return &StatusError{Status: http.StatusNotFound, Err: fmt.Errorf("%s has no query", r.URL.Path)}
	case r.URL.Path == sessionPath && len(users) > 0:
		return &StatusError{Status: http.StatusBadRequest, Err: fmt.Errorf("%s ends the session of all users: to log one out, use %s", sessionPath, userPath)}
	case r.URL.Path == sessionPath:
		return h.Client.Forget(r.Context())
	case len(users) != 1 || users[0] == "":
		return &StatusError{Status: http.StatusBadRequest, Err: errors.New("the header Msl-User must name the user, once")}
	}
	user, err := url.PathUnescape(users[0])
	if err != nil {
		return &StatusError{Status: http.StatusBadRequest, Err: errNotEncoded("Msl-User")}
	}
	return h.Client.Logout(r.Context(), user)
}

// errNotEncoded says that a header has no valid percent-encoding.
func errNotEncoded(name string) error {
	return fmt.Errorf("the header %s is not percent-encoded: write %%25 for a percent sign", name)
}
