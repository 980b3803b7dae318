package msl_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// An exchange is the outcome of one message: what the application saw, its error, and the
// answer on the wire.
type exchanged struct {
	served  error
	body    []byte
	readErr error
	called  bool
	message *msl.Message
	wire    []byte
}

// serve gives a message to the server. The application reads it to its end and
// makes no demands on the protection of its answer.
func (r *recorded) serve(message []byte) (e exchanged) {
	var out bytes.Buffer
	e.served = r.server.Serve(context.Background(), "test", bytes.NewReader(message), &out,
		func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			w.Encrypted, w.Authenticated = false, false
			e.called, e.message = true, m
			if e.body, e.readErr = io.ReadAll(m.Body); e.readErr != nil {
				return e.readErr
			}
			_, err := w.Write(e.body)
			return err
		})
	e.wire = out.Bytes()
	return e
}

// refusal reads an answer that must be an error.
func (r *recorded) refusal(t testing.TB, e exchanged) *answerError {
	t.Helper()
	if e.served != nil {
		t.Fatalf("no answer: %v", e.served)
	}
	a, err := readAnswer(e.wire, r.public(), nil, func(answerHeader) (*rawKeys, error) {
		return nil, errors.New("the answer is no error")
	})
	if err != nil {
		t.Fatal(err)
	}
	if a.outer.MasterToken != nil || a.outer.EntityAuthData == nil || a.err.Timestamp == nil || *a.err.Timestamp != r.clock().Unix() {
		t.Errorf("error message %s", e.wire)
	}
	return a.err
}

// mustRefuse expects an error answer with a code. A negative id stands for a
// message whose id could not be read.
func (r *recorded) mustRefuse(t testing.TB, message []byte, code msl.Code, id int64) exchanged {
	t.Helper()
	e := r.serve(message)
	got := r.refusal(t, e)
	if got.InternalCode != 100000+int(code) || got.ErrorCode != int(code.Response()) || got.ErrorMsg != code.Text() {
		t.Errorf("answer %+v, want %v", got, code)
	}
	switch {
	case got.MessageID == nil || *got.MessageID < 0 || *got.MessageID > 1<<53:
		t.Errorf("message id %v", got.MessageID)
	case id >= 0 && *got.MessageID != id+1:
		t.Errorf("answer to message %d has id %d", id, *got.MessageID)
	case id < 0 && *got.MessageID == 2:
		t.Error("the id of a message that could not be read is known")
	}
	return e
}

// stricter are messages that the reference accepts and this package must refuse.
var stricter = map[string]msl.Code{
	"PSK: messageid as double":            msl.ErrMSLParseError,
	"master token: messageid as double":   msl.ErrMSLParseError,
	"both entityauthdata and mastertoken": msl.ErrMSLParseError,
}

func TestVectorsNegative(t *testing.T) {
	var v struct {
		Cases []struct {
			Name    string
			Message []byte `json:"message_b64"`
			Result  struct {
				OK    *readMessage
				Error *struct {
					InternalCode, ResponseCode int
					MessageID                  *int64
				}
			}
		}
	}
	readVectors(t, "spec/negative.json", &v)
	if len(v.Cases) != 43 {
		t.Errorf("%d cases", len(v.Cases))
	}
	for _, c := range v.Cases {
		t.Run(c.Name, func(t *testing.T) {
			r := newRecorded(t)
			if strings.HasPrefix(c.Name, "NONE") {
				r.directory["c"] = &msl.Entity{Identity: "c", Scheme: "NONE"}
			}
			if code, ok := stricter[c.Name]; ok {
				r.mustRefuse(t, c.Message, code, -1)
				return
			}
			if strings.Contains(c.Name, "no endofmsg") {
				r.mustTruncate(t, c.Message, "hello")
				return
			}
			if c.Result.Error != nil {
				id := int64(-1)
				if c.Result.Error.MessageID != nil {
					id = *c.Result.Error.MessageID
				} else if strings.HasPrefix(c.Name, "payload") || strings.HasPrefix(c.Name, "GZIP") {
					id = 1 // the header was read, so the id is known
				}
				code := msl.Code(c.Result.Error.InternalCode - 100000)
				if int(code.Response()) != c.Result.Error.ResponseCode {
					t.Errorf("response code %d", code.Response())
				}
				r.mustRefuse(t, c.Message, code, id)
				return
			}
			e := r.serve(c.Message)
			if e.served != nil || !e.called || !bytes.Equal(e.body, c.Result.OK.Payload) || e.message.Identity != c.Result.OK.Identity ||
				e.message.MessageID != c.Result.OK.MessageID || e.message.NonReplayable {
				t.Errorf("%+v, want %+v", e, c.Result.OK)
			}
			got, err := newRecorded(t).server.Receive(context.Background(), bytes.NewReader(c.Message))
			if err != nil {
				t.Fatal(err)
			}
			c.Result.OK.check(t, got)
		})
	}
}

// mustTruncate expects that the application gets an error for a message that was cut off,
// and that nothing is answered.
func (r *recorded) mustTruncate(t testing.TB, message []byte, body string) {
	t.Helper()
	e := r.serve(message)
	if !e.called || string(e.body) != body || !errors.Is(e.readErr, msl.ErrTruncated) {
		t.Errorf("the application read %q, %v", e.body, e.readErr)
	}
	if !errors.Is(e.served, msl.ErrTruncated) || len(e.wire) > 0 {
		t.Errorf("served %v, answered %s", e.served, e.wire)
	}
}
