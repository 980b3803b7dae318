package agent

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// A refusal is a response without an answer. Its exported fields make up the body.
type refusal struct {
	status     int
	retryAfter int // seconds; 0 means none

	Error    string `json:"error"`
	Response string `json:"response,omitempty"` // of the MSL error
	Code     int    `json:"code,omitempty"`     // its number, unless it is an application's own
	Name     string `json:"name,omitempty"`
	Internal int64  `json:"internalcode,omitempty"` // of an application's own error
	Message  string `json:"message,omitempty"`      // for the user, from the server
}

// refusal returns the response for a message that had no answer.
func (h *Handler) refusal(err error) *refusal {
	told, status := err, statusOf(err)
	if h.Explain != nil {
		told = h.Explain(err)
		errors.As(told, &status) // which may then be another one
	}
	r := &refusal{status: status.Status, retryAfter: status.RetryAfter, Error: oneLine(told)}
	var peer *msl.PeerError
	if errors.As(err, &peer) {
		r.Response, r.Message = peer.Response.String(), peer.User
		switch name := peer.Code.Name(); {
		case name != "":
			r.Code, r.Name = int(peer.Code), name
		case peer.InternalCode > 0:
			r.Internal = peer.InternalCode
		}
	}
	return r
}

// oneLine puts joined errors on one line.
func oneLine(err error) string {
	return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
}

func (r *refusal) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set(mslhttp.ErrorHeader, "agent")
	if r.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(r.retryAfter))
	}
	text, _ := json.Marshal(r) // strings and numbers always marshal
	h.Set("Content-Length", strconv.Itoa(len(text)+1))
	w.WriteHeader(r.status)
	_, _ = w.Write(append(text, '\n')) // if the program is gone, nobody reads the answer
}
