package failurelog

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/leaktest"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

func TestMain(m *testing.M) {
	if spool := os.Getenv("FAILURELOG_TEST_SPOOL"); spool != "" {
		fillSpool(spool) // until it is killed
	}
	os.Exit(leaktest.Run(m))
}

// direct hands messages to a handler without a network, and remembers them.
type direct struct {
	handler http.Handler

	mu      sync.Mutex
	sent    [][]byte
	answers [][]byte
	fail    error // instead of an answer
}

func (d *direct) RoundTrip(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
	var message bytes.Buffer
	if err := write(&message); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sent = append(d.sent, bytes.Clone(message.Bytes()))
	if d.fail != nil {
		return nil, d.fail
	}
	w := post(d.handler, message.Bytes())
	d.answers = append(d.answers, w.Body.Bytes())
	if w.Code != http.StatusOK {
		return nil, &mslhttp.StatusError{Status: w.Code}
	}
	return io.NopCloser(bytes.NewReader(w.Body.Bytes())), nil
}

func (d *direct) setFail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = err
}

func (d *direct) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.sent)
}

func post(h http.Handler, message []byte) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(message)))
	return w
}

var errAway = errors.New("no route to the server")

// newHandler returns a handler with its own log.
func newHandler(t testing.TB) (*Handler, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "failures.jsonl")
	log, err := OpenLog(path, Rotation{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return &Handler{Log: log, PerSource: 1000, PerSecond: 1000}, path
}

// records reads a log. All of its lines must be valid.
func records(t testing.TB, path string) []Record {
	t.Helper()
	var all []Record
	skipped, err := Read(path, func(r Record) { all = append(all, r) })
	if err != nil || skipped != 0 {
		t.Fatalf("%d lines were skipped, error %v", skipped, err)
	}
	return all
}

type object = map[string]any

// message returns the bytes of an unprotected message.
func message(t testing.TB, outside, header object, data []byte) []byte {
	t.Helper()
	encode := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	inside := object{"messageid": 7, "timestamp": 1700000000, "renewable": false, "handshake": false}
	maps.Copy(inside, header)
	head := object{"headerdata": encode(inside), "signature": ""}
	maps.Copy(head, outside)
	chunk := object{"sequencenumber": 1, "messageid": 7, "endofmsg": true, "data": data}
	return append(encode(head), encode(object{"payload": encode(chunk), "signature": ""})...)
}

// from returns the sender's entity of scheme NONE.
func from(identity string) object {
	return object{"entityauthdata": object{"scheme": "NONE", "authdata": object{"identity": identity}}}
}

// answerCode returns the code of an error answer, or -1.
func answerCode(t testing.TB, answer []byte) msl.Code {
	t.Helper()
	var head struct {
		ErrorData []byte `json:"errordata"`
	}
	if err := json.NewDecoder(bytes.NewReader(answer)).Decode(&head); err != nil {
		t.Fatalf("answer %q: %v", answer, err)
	}
	if head.ErrorData == nil {
		return -1
	}
	var inside struct {
		InternalCode int `json:"internalcode"`
	}
	if err := json.Unmarshal(head.ErrorData, &inside); err != nil {
		t.Fatal(err)
	}
	return msl.Code(inside.InternalCode - 100000)
}

var base64Text = regexp.MustCompile(`[A-Za-z0-9+/]{8,}={0,2}`)

// layers returns the bytes of a message, and of everything in Base64 in them.
func layers(b []byte) []byte {
	all := bytes.Clone(b)
	for _, text := range base64Text.FindAll(b, -1) {
		if inner, err := base64.StdEncoding.DecodeString(string(text)); err == nil {
			all = append(append(all, '\n'), layers(inner)...)
		}
	}
	return all
}
