package msl_test

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestEqualServiceTokens sends several tokens with the same name and binding. As in the
// reference stack, the first one counts, and all are checked.
func TestEqualServiceTokens(t *testing.T) {
	plain := func(data string, more object) object {
		return serviceToken(with(object{"servicedata": []byte(data)}, more))
	}
	bound, user := object{"mtserialnumber": 7}, object{"mtserialnumber": 7, "uitserialnumber": 8}
	foreign := pskClient1.signed("tokendata", encode(object{"name": "st", "encrypted": false, "servicedata": []byte("x")}))
	damaged := plain("x", object{"compressionalgo": "GZIP"})
	for name, c := range map[string]struct {
		list []any
		want []string
		code msl.Code
	}{
		"two":                  {list: []any{plain("1", nil), plain("2", nil)}, want: []string{"1"}},
		"deletion first":       {list: []any{plain("", nil), plain("2", nil)}, want: []string{""}},
		"deletion last":        {list: []any{plain("1", nil), plain("", nil)}, want: []string{"1"}},
		"not verified first":   {list: []any{foreign, plain("2", nil)}, want: []string{"unread"}},
		"not verified last":    {list: []any{plain("1", nil), foreign}, want: []string{"1"}},
		"others in between":    {list: []any{plain("1", nil), plain("2", object{"name": "b"}), plain("3", nil), plain("4", object{"name": "b"})}, want: []string{"1", "2"}},
		"another binding":      {list: []any{plain("1", nil), plain("2", bound), plain("3", user), plain("4", bound)}, want: []string{"1", "2", "3"}},
		"damaged first":        {list: []any{damaged, plain("2", nil)}, code: msl.ErrUncompressionError},
		"damaged last":         {list: []any{plain("1", nil), damaged}, code: msl.ErrUncompressionError},
		"malformed last":       {list: []any{plain("1", nil), plain("2", object{"mtserialnumber": -1})}, code: msl.ErrServiceTokenMasterTokenSerialNumberOutOfRange},
		"damaged, then 3000":   {list: []any{plain("1", nil), damaged, plain("2", object{"mtserialnumber": 6})}, code: msl.ErrUncompressionError},
		"another master token": {list: []any{plain("1", nil), plain("2", object{"mtserialnumber": 6})}, code: msl.ErrServiceTokenMasterTokenMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecorded(t)
			message := fromToken(object{"useridtoken": userToken(nil), "servicetokens": c.list})
			if c.code != 0 {
				r.mustRefuse(t, message, c.code, 1)
				return
			}
			e := r.serve(message)
			if e.served != nil || !e.called {
				t.Fatal(e.served)
			}
			var got []string
			for _, token := range e.message.ServiceTokens {
				got = append(got, map[bool]string{true: string(token.Data), false: "unread"}[token.Data != nil])
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q", got)
			}
		})
	}
}

// TestEqualPeerServiceTokens sends them in both lists of a peer-to-peer message.
func TestEqualPeerServiceTokens(t *testing.T) {
	list := []any{serviceToken(object{"servicedata": []byte("1")}), serviceToken(object{"servicedata": []byte("2")})}
	r := newRecorded(t)
	conn, _ := r.peerTo(t, fromToken(object{"servicetokens": list, "peermastertoken": masterToken(nil), "peerservicetokens": list}))
	err := conn.Serve(t.Context(), func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		w.Encrypted, w.Authenticated = false, false
		if len(m.ServiceTokens) != 1 || string(m.ServiceTokens[0].Data) != "1" {
			t.Errorf("%d tokens", len(m.ServiceTokens))
		}
		return nil
	})
	if held := conn.Client.Held().ServiceTokens; err != nil || len(held) != 1 || !bytes.Equal(msl.ServiceTokenBytes(held[0]), encode(list[0])) {
		t.Errorf("%d tokens are held, %v", len(held), err)
	}
}
