package agent

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// deleted asks the agent to end something, and returns the status.
func (n *network) deleted(method, path string, headers http.Header) (int, string) {
	n.Helper()
	r, err := http.NewRequest(method, strings.TrimSuffix(n.base, "/")+path, nil)
	if err != nil {
		n.Fatal(err)
	}
	r.Header = headers
	answer, err := n.web.Do(r)
	if err != nil {
		n.Fatal(err)
	}
	defer answer.Body.Close()
	return answer.StatusCode, answer.Header.Get("Allow")
}

// TestSessionEnds logs a user out and forgets the session, as programs ask for it.
func TestSessionEnds(t *testing.T) {
	n := newNetwork(t)
	var kept msl.ClientRecord
	n.handler.Users = []string{"ada@example.com"}
	n.handler.Client.State = &watchedState{ClientState: &memory{}, renewed: func(msl.ClientRecord) {}}
	n.handler.Client.State = recording{n.handler.Client.State, &kept}
	n.serve()
	ada := http.Header{"Msl-User": {"ada%40example.com"}}
	n.echoes("x", "Msl-User: ada@example.com")
	if len(kept.UserIDTokens) != 1 {
		t.Fatal("no user is logged in")
	}
	asks := func(what string, more ...string) http.Header {
		h := http.Header{"Msl-Session": {what}}
		for i := 0; i+1 < len(more); i += 2 {
			h.Add(more[i], more[i+1])
		}
		return h
	}
	for _, c := range []struct {
		method, path string
		headers      http.Header
		status       int
		users        int
		session      bool
	}{
		{"GET", "/", asks("forget"), 405, 1, true},
		{"POST", "/", asks("logout", "Msl-User", "ada@example.com"), 405, 1, true},
		{"DELETE", "/", ada, 405, 1, true},
		{"DELETE", "/", asks("end"), 400, 1, true},
		{"DELETE", "/", asks("forget", "Msl-Session", "forget"), 400, 1, true},
		{"DELETE", "/", asks("forget", "Msl-User", "ada@example.com"), 400, 1, true},
		{"DELETE", "/", asks("logout"), 400, 1, true},
		{"DELETE", "/", asks("logout", "Msl-User", "ada%4"), 400, 1, true},
		{"DELETE", "/", asks("logout", "Msl-User", "a", "Msl-User", "b"), 400, 1, true},
		{"DELETE", "/", asks("logout", "Origin", "http://example.com", "Msl-User", "ada@example.com"), 403, 1, true},
		{"DELETE", "/", asks("logout", "Msl-User", "bob@example.com"), 204, 1, true},
		{"DELETE", "/any/path?of=a-service", asks("logout", "Msl-User", "ada%40example.com"), 204, 0, true},
		{"DELETE", "/", asks("forget"), 204, 0, false},
		{"DELETE", "/", asks("forget"), 204, 0, false},
	} {
		status, allow := n.deleted(c.method, c.path, c.headers)
		if status != c.status || len(kept.UserIDTokens) != c.users || (kept.MasterToken != nil) != c.session {
			t.Errorf("%s %s %v: %d, %d users, a session: %v", c.method, c.path, c.headers, status, len(kept.UserIDTokens), kept.MasterToken != nil)
		}
		if (allow != "") != (status == 405) {
			t.Errorf("%s %s allows %q", c.method, c.path, allow)
		}
	}
	n.echoes("a new session")
}

// A recording state shows the last record.
type recording struct {
	msl.ClientState
	last *msl.ClientRecord
}

func (s recording) Save(ctx context.Context, r msl.ClientRecord) error {
	*s.last = r
	return s.ClientState.Save(ctx, r)
}
