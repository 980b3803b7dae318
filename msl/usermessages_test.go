package msl_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

// proveBy authenticates a user by a password, once.
func proveBy(password string) func(context.Context, string, msl.ResponseCode) (*msl.UserAuthData, error) {
	return func(_ context.Context, user string, reason msl.ResponseCode) (*msl.UserAuthData, error) {
		if reason != 0 {
			return nil, nil
		}
		return userauth.EmailPasswordData(user, []byte(password)), nil
	}
}

// german has texts in one language, and records what it was asked.
type german struct {
	text      string
	asked     error
	languages []string
}

func (g *german) UserMessage(err error, languages []string) string {
	g.asked, g.languages = err, languages
	return g.text
}

// TestUserMessages sends texts for users with errors of the application, and of the
// protocol before and after a header could be read.
func TestUserMessages(t *testing.T) {
	skipWithRace(t)
	own := &msl.AppError{Message: "no"}
	for name, c := range map[string]struct {
		err       error // of the application
		languages []string
		password  string
		text      string
		code      msl.Code // that is asked about; -1 is the application's error
		want      string
	}{
		"of the application": {own, []string{"de", "en"}, "", "Nein.", -1, "Nein."},
		"said by it":         {&msl.AppError{User: "so"}, []string{"de"}, "", "Nein.", -2, "so"},
		"of the protocol":    {msl.ErrUserRejectedByApp, []string{"de"}, "", "Nein.", msl.ErrUserRejectedByApp, "Nein."},
		"by what is sent":    {msl.ErrRejectEntity, []string{"de"}, "", "Nein.", msl.ErrEntityRejectedByApp, "Nein."},
		"no text":            {own, []string{"de"}, "", "", -1, ""},
		"no languages":       {own, nil, "", "Nein.", -1, "Nein."},
		"a long text":        {own, nil, "", strings.Repeat("x", 5000), -1, strings.Repeat("x", 4096)},
		"a wrong password":   {nil, []string{"de"}, "wrong", "Falsch.", msl.ErrEmailPasswordIncorrect, "Falsch."},
	} {
		t.Run(name, func(t *testing.T) {
			n := softNetwork(t)
			client := n.pskClient("device")
			client.Capabilities = &msl.Capabilities{Languages: c.languages}
			req := plainly()
			if c.password == "" {
				if _, _, err := send(t, client, req); err != nil { // for a token
					t.Fatal(err)
				}
			} else {
				client.UserAuth = proveBy(c.password)
				req.User = "user@example.com"
			}
			texts := &german{text: c.text}
			n.server.Messages = texts
			if c.err != nil {
				n.handler = refusing(c.err)
			}
			if got := peerError(t, client, req); got.User != c.want {
				t.Errorf("%.60q, want %.60q", got.User, c.want)
			}
			var code msl.Code
			switch {
			case c.code == -2 && texts.asked != nil:
				t.Errorf("asked for %v", texts.asked)
			case c.code == -1 && !errors.Is(texts.asked, own):
				t.Errorf("asked for %v", texts.asked)
			case c.code >= 0 && (!errors.As(texts.asked, &code) || code != c.code):
				t.Errorf("asked for %v, want %v", texts.asked, c.code)
			case c.code >= -1 && strings.Join(texts.languages, " ") != strings.Join(c.languages, " "):
				t.Errorf("languages %q", texts.languages)
			}
		})
	}
}

// TestRequestLanguages says for one request what its user reads.
func TestRequestLanguages(t *testing.T) {
	n := softNetwork(t)
	client := n.pskClient("device")
	var got []string
	n.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		got = m.Languages
		return echo(ctx, w, m)
	}
	for _, c := range []struct {
		own  *msl.Capabilities
		of   []string
		want string
	}{
		{&msl.Capabilities{Languages: []string{"en"}}, nil, "en"},
		{&msl.Capabilities{Languages: []string{"en"}}, []string{"de", "fr"}, "de fr"},
		{&msl.Capabilities{Languages: []string{"en"}}, []string{}, ""},
		{nil, []string{"de"}, "de"},
		{nil, nil, ""},
	} {
		client.Capabilities = c.own
		req := plainly()
		req.Languages = c.of
		if _, _, err := send(t, client, req); err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%q, want %q, %v", got, c.want, err)
		}
	}
}

// TestUserMessageOfUnread sends a text for what could not be read, whose languages are
// not known.
func TestUserMessageOfUnread(t *testing.T) {
	n := softNetwork(t)
	texts := &german{text: "Nein."}
	n.server.Messages = texts
	n.intercept = func([]byte) []byte { return []byte(`{"nothing":1}`) }
	if got := peerError(t, n.pskClient("device"), plainly()); got.User != "Nein." || texts.languages != nil {
		t.Errorf("%q, languages %q", got.User, texts.languages)
	}
	if !errors.Is(texts.asked, msl.ErrMSLParseError) {
		t.Error(texts.asked)
	}
}

// TestUserMessageToPeer sends one between peers.
func TestUserMessageToPeer(t *testing.T) {
	one, two := newSides(t, "PSK", "PSK")
	texts := &german{text: "Nein."}
	two.server.Messages = texts
	first, second := connect(t, one, two)
	first.Client.Capabilities = &msl.Capabilities{Languages: []string{"de"}}
	done := serveAll(second, refusing(msl.ErrUserRejectedByApp), 1)
	_, err := first.Request(t.Context(), secret2("x"))
	var refused *msl.PeerError
	if !errors.As(err, &refused) || refused.User != "Nein." || strings.Join(texts.languages, " ") != "de" {
		t.Errorf("%#v, languages %q", err, texts.languages)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
