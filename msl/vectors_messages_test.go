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

// A messageCase is a recorded message and what the reference read of it.
type messageCase struct {
	Name    string
	Message encoding
	Parsed  struct {
		OK *readMessage
		errorFields
	}
}

type readMessage struct {
	MessageID                     int64
	Timestamp, NonReplayableID    *int64
	Renewable, Handshake          bool
	Identity                      string
	User                          *string
	ServiceTokens, KeyRequestData int
	KeyResponseData               bool
	PeerServiceTokens, PeerUser   any
	Payload                       []byte `json:"payload_b64"`
}

type errorFields struct {
	ErrorCode, InternalCode int
	MessageID               int64
	UserMsg                 *string
}

func orAbsent(n *int64) int64 {
	if n == nil {
		return -1
	}
	return *n
}

func (m readMessage) check(t *testing.T, got msl.Received) {
	t.Helper()
	if m.KeyRequestData == 2 {
		m.KeyRequestData = 1 // the other one is of a mechanism that is not configured
	}
	if got.MessageID != m.MessageID || got.Timestamp != orAbsent(m.Timestamp) || got.NonReplayableID != orAbsent(m.NonReplayableID) ||
		got.Renewable != m.Renewable || got.Handshake != m.Handshake || got.KeyResponse != m.KeyResponseData ||
		got.Identity != m.Identity || (m.User == nil) != (got.User == "") || m.User != nil && *m.User != got.User ||
		got.ServiceTokens != m.ServiceTokens || got.KeyRequests != m.KeyRequestData || !bytes.Equal(got.Payload, m.Payload) {
		t.Errorf("read %+v,\nwant %+v", got, m)
	}
}

// unconfigured returns a server's code for a scheme that it does not have.
func unconfigured(name string) bool {
	for _, s := range []string{"PSK_PROFILE", "ECC", "NONE_SUFFIXED", "MT_PROTECTED", "PROVISIONED"} {
		if strings.Contains(name, s) {
			return true
		}
	}
	return false
}

func TestVectorsMessages(t *testing.T) {
	var v struct{ Cases []messageCase }
	readVectors(t, "spec/messages.json", &v)
	counts := map[string]int{}
	for _, c := range v.Cases {
		t.Run(c.Name, func(t *testing.T) {
			r := newRecorded(t)
			r.state.anyID = true
			got, err := r.server.Receive(context.Background(), bytes.NewReader(c.Message.Bytes))
			switch {
			case unconfigured(c.Name):
				counts["unconfigured"]++
				if !errors.Is(err, msl.ErrEntityAuthFactoryNotFound) {
					t.Errorf("%v, want %v", err, msl.ErrEntityAuthFactoryNotFound)
				}
			case c.Parsed.OK == nil:
				counts["error"]++
				c.Parsed.errorFields.check(t, got.Error, err)
			case c.Parsed.OK.KeyResponseData:
				counts["key response"]++
				if !errors.Is(err, msl.ErrKeyXResponseRequestMismatch) {
					t.Errorf("a server reads a key response: %v", err)
				}
				checkKeyResponse(t, r, c)
			case err != nil:
				t.Error(err)
			default:
				counts["read"]++
				c.Parsed.OK.check(t, got)
			}
		})
	}
	if counts["unconfigured"] != 6 || counts["error"] != 12 || counts["key response"] != 1 || counts["read"] != 15 {
		t.Errorf("cases %v", counts)
	}
}

func (f errorFields) check(t *testing.T, got *msl.PeerError, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if got == nil {
		t.Fatal("not read as an error")
	}
	code := f.InternalCode
	if code >= 0 {
		code -= 100000
	}
	if int(got.Response) != f.ErrorCode || int(got.Code) != code || got.MessageID != f.MessageID {
		t.Errorf("read %+v, want %+v", got, f)
	}
	if f.UserMsg == nil && got.User != "" || f.UserMsg != nil && *f.UserMsg != got.User {
		t.Errorf("text for the user: %q", got.User)
	}
}

// checkKeyResponse reads the recorded key response as its recipient.
func checkKeyResponse(t *testing.T, r *recorded, c messageCase) {
	t.Helper()
	x := clientKeys(t)["SYMMETRIC_WRAPPED"]
	client := &msl.Client{
		Local: localSchemes(t)["PSK"], Peers: r.server.Peers, KeyExchanges: []msl.Offerer{x}, Time: r.clock,
	}
	defer client.Close()
	sent := c.Parsed.OK.MessageID - 1
	answer, err := client.Answer(context.Background(), &msl.Request{}, sent, io.NopCloser(bytes.NewReader(c.Message.Bytes)))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	payload, err := io.ReadAll(answer.Body)
	if err != nil || !bytes.Equal(payload, c.Parsed.OK.Payload) || answer.Identity != c.Parsed.OK.Identity {
		t.Errorf("payload %q of %q, %v", payload, answer.Identity, err)
	}
	if held := client.Held(); held.MasterToken == nil || held.MasterToken.SerialNumber == 0 {
		t.Errorf("the client holds %+v", held)
	}
	for _, id := range []int64{sent - 1, sent + 1} {
		_, err := client.Answer(context.Background(), &msl.Request{}, id, io.NopCloser(bytes.NewReader(c.Message.Bytes)))
		if !errors.Is(err, msl.ErrUnexpectedResponseMessageID) {
			t.Errorf("answer to another message: %v", err)
		}
	}
	_, err = client.Answer(context.Background(), &msl.Request{Recipient: "server1"}, sent, io.NopCloser(bytes.NewReader(c.Message.Bytes)))
	if !errors.Is(err, msl.ErrMessageSenderMismatch) {
		t.Errorf("answer of another entity: %v", err)
	}
}

// A trusted-services reader ignores the peer tokens of a peer-to-peer message.
func TestVectorsPeerToPeerMessages(t *testing.T) {
	var v struct{ Cases []messageCase }
	readVectors(t, "spec/messages_p2p.json", &v)
	read := 0
	for _, c := range v.Cases {
		if unconfigured(c.Name) {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			r := newRecorded(t)
			r.state.anyID = true
			got, err := r.server.Receive(context.Background(), bytes.NewReader(c.Message.Bytes))
			if c.Parsed.OK == nil {
				c.Parsed.errorFields.check(t, got.Error, err)
				read++
				return
			}
			if c.Parsed.OK.KeyResponseData {
				if !errors.Is(err, msl.ErrKeyXResponseRequestMismatch) {
					t.Errorf("a server reads a key response: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			c.Parsed.OK.check(t, got)
			read++
		})
	}
	if read == 0 {
		t.Error("nothing was read")
	}
}
