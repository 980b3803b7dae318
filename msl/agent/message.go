package agent

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/text/language"

	"github.com/msl-hsm/msl-hsm/internal/safetext"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A message is what a program asks to send.
type message struct {
	request  msl.Request
	noAnswer bool
	method   string // of an HTTP request sent whole; empty means that only its body is sent
}

// A UserError says that a request names a user whom the [Handler] does not know.
type UserError struct{ User string }

// Error names the user, with unprintable characters escaped.
func (e *UserError) Error() string {
	return "the agent does not send for the user " + safetext.String(e.User)
}

// message reads what a program requests from the headers of its request. An unknown
// header that begins with Msl- is refused, since it would have no effect.
func (h *Handler) message(r *http.Request) (message, error) {
	m := message{request: msl.Request{Encrypted: true, Authenticated: true, RequestTokens: true, User: h.User, Recipient: h.Recipient}}
	switch {
	case r.ContentLength > h.maxBody() && h.maxBody() > 0: // before the program is asked to send it
		return m, &StatusError{Status: http.StatusRequestEntityTooLarge, Err: &BodyError{h.maxBody()}}
	case h.HTTP: // anything is allowed
	case r.Method != http.MethodPost:
		return m, &StatusError{Status: http.StatusMethodNotAllowed, Err: errors.New("send messages by POST")}
	case r.URL.Path != "/" || r.URL.RawQuery != "":
		return m, &StatusError{Status: http.StatusNotFound, Err: errors.New("the agent sends to one server: post to / and without a query")}
	}
	m.request.Languages = languages(r.Header)
	for name, values := range r.Header {
		if !strings.HasPrefix(name, "Msl-") {
			continue
		}
		if err := m.set(name, values); err != nil {
			return m, &StatusError{Status: http.StatusBadRequest, Err: err}
		}
	}
	if user := m.request.User; user != "" && !h.knows(user) {
		return m, &StatusError{Status: http.StatusForbidden, Err: &UserError{user}}
	}
	return m, nil
}

// maxLanguages is how many languages of a program are sent to the server.
const maxLanguages = 16

// languages are those that a program accepts, best first, or nil if it names none.
func languages(h http.Header) (list []string) {
	tags, _, err := language.ParseAcceptLanguage(h.Get("Accept-Language"))
	if err != nil {
		return nil
	}
	for _, tag := range tags[:min(len(tags), maxLanguages)] {
		if base, _ := tag.Base(); tag != language.Und && base.String() != "mul" { // mul is what * becomes
			list = append(list, tag.String())
		}
	}
	return list
}

// knows reports whether programs may send for a user.
func (h *Handler) knows(user string) bool {
	same := func(known string) bool { return msl.CanonicalName(known) == msl.CanonicalName(user) }
	return same(h.User) || slices.ContainsFunc(h.Users, same)
}

func (m *message) set(name string, values []string) (err error) {
	if len(values) != 1 {
		return fmt.Errorf("the header %s is repeated", name)
	}
	switch name {
	case "Msl-User":
		if m.request.User, err = url.PathUnescape(values[0]); err != nil {
			return errNotEncoded(name)
		}
	case "Msl-Non-Replayable":
		m.request.NonReplayable, err = trueOrFalse(name, values[0])
	case "Msl-No-Compression":
		m.request.Uncompressed, err = trueOrFalse(name, values[0])
	case "Msl-No-Answer":
		m.noAnswer, err = trueOrFalse(name, values[0])
	default:
		err = fmt.Errorf("unknown header %s: want Msl-User, Msl-Non-Replayable, Msl-No-Compression or Msl-No-Answer", safetext.String(name))
	}
	return err
}

func trueOrFalse(name, value string) (bool, error) {
	if value != "true" && value != "false" {
		return false, fmt.Errorf("the header %s must be true or false", name)
	}
	return value == "true", nil
}
