package msl_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A recordedMessage is what an independent decoder read of a recorded message.
type recordedMessage struct {
	EntityAuthData *schemed
	MasterToken    *recordedMasterToken
	HeaderData     *recordedHeader
	ErrorData      *struct {
		InternalCode, ErrorCode int
		MessageID, Timestamp    int64
	}
	Payloads []struct{ Data string }
}

type recordedMasterToken struct {
	SerialNumber, SequenceNumber int64
	SessionData                  struct {
		Identity                    string
		EncryptionKey, SignatureKey []byte
	}
}

type recordedHeader struct {
	MessageID, Timestamp int64
	NonReplayableID      *int64
	Renewable, Handshake bool
	KeyRequestData       []struct {
		Scheme  string
		KeyData struct{ Mechanism, KeyID string }
	}
	KeyResponseData *struct {
		Scheme      string
		MasterToken recordedMasterToken
	}
	UserAuthData *struct {
		Scheme   string
		AuthData struct{ Email string }
	}
	UserIDToken *struct {
		MTSerialNumber, SerialNumber int64
		UserData                     struct{ Identity string }
	}
	ServiceTokens []struct{ Name, ServiceData string }
}

func (m recordedMessage) payload() string {
	var all strings.Builder
	for _, p := range m.Payloads {
		all.WriteString(p.Data)
	}
	return all.String()
}

// raw are the session keys of the message's master token.
func (m *recordedMasterToken) raw() rawKeys {
	return rawKeys{keyName(m), m.SessionData.EncryptionKey, m.SessionData.SignatureKey}
}

func keyName(m *recordedMasterToken) string {
	return fmt.Sprintf("%s_%d", m.SessionData.Identity, m.SequenceNumber)
}

// A conversation is all that was recorded under one label.
type conversation struct {
	label     string
	exchanges []struct {
		Req, Resp recordedMessage
		ReqError  string `json:"req_error"`
	}
}

func (c conversation) request(t testing.TB, i int) []byte {
	return readFile(t, fmt.Sprintf("conversations/%s.req.%d", c.label, i+1))
}

func (c conversation) response(t testing.TB, i int) []byte {
	return readFile(t, fmt.Sprintf("conversations/%s.resp.%d", c.label, i+1))
}

func readConversations(t testing.TB) (all []conversation) {
	t.Helper()
	files, err := filepath.Glob(vectors + "/conversations/*.decoded.json")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d conversations, %v", len(files), err)
	}
	for _, f := range files {
		c := conversation{label: strings.TrimSuffix(filepath.Base(f), ".decoded.json")}
		readVectors(t, "conversations/"+filepath.Base(f), &c.exchanges)
		all = append(all, c)
	}
	return all
}

// A stubExchange stands in for a scheme that is not there, so that the rest of
// the messages that offer it can be read. Its keys are known.
type stubExchange struct {
	scheme string
	store  *soft.Store
}

var stubKeys = rawKeys{"stub", unhex("00112233445566778899aabbccddeeff"), unhex("00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff")}

func (s stubExchange) Scheme() string     { return s.scheme }
func (s stubExchange) Check([]byte) error { return nil }
func (s stubExchange) Respond(context.Context, msl.Requester, []byte) (*msl.SessionKeys, []byte, error) {
	e, err := s.store.Import(keystore.AES128CBC, stubKeys.encryption)
	m, err2 := s.store.Import(keystore.HMACSHA256, stubKeys.mac)
	if err := errors.Join(err, err2); err != nil {
		return nil, nil, err
	}
	return msl.NewSessionKeys(e.(keystore.Cipher), m.(keystore.MAC)), []byte(`{}`), nil
}
func (s stubExchange) Offer(context.Context, msl.Requester) (msl.Offer, error) {
	return nil, errors.ErrUnsupported
}
func (s stubExchange) Resume(context.Context, []byte) (*msl.SessionKeys, error) {
	return nil, errors.ErrUnsupported
}

// unwrapAES undoes AES Key Wrap (RFC 3394 section 2.2.2).
func unwrapAES(kek, wrapped []byte) ([]byte, error) {
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, err
	}
	n := len(wrapped)/8 - 1
	a, r := binary.BigEndian.Uint64(wrapped), bytes.Clone(wrapped[8:])
	for t := 6 * n; t > 0; t-- {
		i := (t - 1) % n * 8
		b := binary.BigEndian.AppendUint64(nil, a^uint64(t))
		b = append(b, r[i:i+8]...)
		block.Decrypt(b, b)
		a = binary.BigEndian.Uint64(b)
		copy(r[i:], b[8:])
	}
	if a != 0xa6a6a6a6a6a6a6a6 {
		return nil, errors.New("key does not unwrap")
	}
	return r, nil
}

// newKeys finds the session keys in an answer's key response.
func newKeys(t testing.TB, h answerHeader) (*rawKeys, error) {
	k := h.KeyResponseData
	var unwrap func([]byte) ([]byte, error)
	switch {
	case k.KeyData.KeyID == "PSK":
		unwrap = func(b []byte) ([]byte, error) { return unwrapAES(pskClient1.wrappingKey(), b) }
	case k.KeyData.KeyPairID != "":
		pair := keyPair(t, "awe_rsa2048").(*rsa.PrivateKey)
		unwrap = func(b []byte) ([]byte, error) { return rsa.DecryptOAEP(sha1.New(), nil, pair, b, nil) }
	default:
		return &stubKeys, nil
	}
	encryption, err := unwrap(k.KeyData.EncryptionKey)
	mac, err2 := unwrap(k.KeyData.HMACKey)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	if len(encryption) != 16 || len(mac) != 32 {
		return nil, errors.New("session keys of another size")
	}
	return &rawKeys{"new", encryption, mac}, nil
}

// recordedApplication echoes, and gives the two service tokens.
func recordedApplication(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
	bind := msl.BindEntity
	if m.User != "" {
		bind = msl.BindUser
	}
	w.SetServiceToken("st_name1", []byte("st_data1"), bind)
	w.SetServiceToken("st_name2", []byte("st_data2"), bind)
	_, err := io.Copy(w, m.Body)
	return err
}

// withStubs configures a stand-in for every exchange that is not there.
func (r *recorded) withStubs() *recorded {
	for _, scheme := range []string{"ASYMMETRIC_WRAPPED", "DIFFIE_HELLMAN", "JWE_LADDER", "JWK_LADDER"} {
		r.server.KeyExchanges = append(r.server.KeyExchanges, stubExchange{scheme, r.store})
	}
	return r
}
