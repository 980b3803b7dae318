package msl_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// slowSession has the client's session keys wait for a device, and returns them.
func slowSession(t *testing.T, c *msl.Client, latency time.Duration) msl.SymmetricKey {
	held := c.Held()
	held.Keys.Acquire()
	store := newFaultyStore(t)
	store.latency = latency
	encryption := must(store.watched(held.Keys.Encryption, nil)).(keystore.Cipher)
	signature := must(store.watched(held.Keys.Signature, nil)).(keystore.MAC)
	if err := c.Hold(t.Context(), held.MasterToken.Bytes(), msl.NewSessionKeys(encryption, signature)); err != nil {
		t.Fatal(err)
	}
	return msl.SymmetricKey{Encryption: held.Keys.Encryption, MAC: held.Keys.Signature}
}

// lastChunk makes the only chunk of a message.
func lastChunk(key msl.SymmetricKey, id int64, data string) []byte {
	encode := base64.StdEncoding.EncodeToString
	payload := must(key.Encrypt(fmt.Appendf(nil, `{"sequencenumber":1,"messageid":%d,"endofmsg":true,"data":"%s"}`, id, encode([]byte(data)))))
	return fmt.Appendf(nil, `{"payload":"%s","signature":"%s"}`, encode(payload), encode(must(key.Sign(payload))))
}

// An answer that delivers new session keys has its data under those. Data under the keys
// of the header is refused, however early it was opened.
func TestDataUnderReplacedKeys(t *testing.T) {
	for _, latency := range []time.Duration{0, time.Millisecond} {
		t.Run(latency.String(), func(t *testing.T) {
			n := newNetwork(t, newStore(t))
			c := n.pskClient("device")
			request := func() (*msl.Response, error) {
				return c.Do(t.Context(), &msl.Request{Encrypted: true, Authenticated: true, RequestTokens: true, Body: msl.BytesBody([]byte("x"))})
			}
			r, err := request()
			if err != nil || r.Body.Close() != nil {
				t.Fatal(err)
			}
			old := slowSession(t, c, latency)
			var id int64
			n.server.Headers = func(h msl.HeaderInfo) {
				if h.Sent {
					id = h.MessageID
				}
			}
			n.now = n.now.Add(2 * time.Hour) // the token is to be renewed
			c.Transport = changedAnswers{n, func(answer []byte) []byte {
				head := answer[:bytes.LastIndex(answer, []byte(`{"payload"`))]
				return append(bytes.Clone(head), lastChunk(old, id, "forged")...)
			}}
			if r, err = request(); err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			if r.KeyExchange == "" {
				t.Fatal("the token was not renewed")
			}
			if data, err := io.ReadAll(r.Body); !errors.Is(err, msl.ErrPayloadVerificationFailed) || len(data) > 0 {
				t.Errorf("data under the old keys: %q, %v", data, err)
			}
		})
	}
}

// changedAnswers change the answers of a network.
type changedAnswers struct {
	*network
	change func([]byte) []byte
}

func (c changedAnswers) RoundTrip(ctx context.Context, write func(io.Writer) error) (io.ReadCloser, error) {
	r, err := c.network.RoundTrip(ctx, write)
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(r)
	return io.NopCloser(bytes.NewReader(c.change(answer))), err
}
