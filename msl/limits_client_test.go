package msl_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
)

// TestClientLimits has answers that exceed each limit of a client, and says which.
func TestClientLimits(t *testing.T) {
	skipWithRace(t)
	n := newNetwork(t, soft.New())
	n.handler = func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		for i := range 3 {
			w.SetServiceToken(fmt.Sprint("token-", i), []byte("data"), msl.BindNone)
		}
		for i := range 20000 {
			if _, err := fmt.Fprintln(w, i); err != nil {
				return err
			}
		}
		return nil
	}
	for _, c := range []struct {
		limits msl.Limits
		want   string
	}{
		{msl.Limits{}, ""},
		{msl.Limits{Header: 100}, "Header"},
		{msl.Limits{Header: 10000, Chunk: 1000}, "Chunk"},
		{msl.Limits{Inflate: 2}, "Inflate"},
		{msl.Limits{Tokens: 2}, "Tokens"},
		{msl.Limits{Depth: 2}, "Depth"},
	} {
		client := n.pskClient("device")
		client.Capabilities = &msl.Capabilities{Compression: []string{"GZIP"}}
		client.Limits = c.limits
		response, err := client.Do(t.Context(), &msl.Request{Encrypted: true, Authenticated: true, RequestTokens: true, Body: msl.BytesBody([]byte("x"))})
		if err == nil {
			_, err = io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}
		limit := &msl.LimitError{}
		errors.As(err, &limit)
		if limit.Limit != c.want || (err == nil) != (c.want == "") || err != nil && strings.Contains(err.Error(), msl.ErrMSLParseError.Text()) {
			t.Errorf("%q, want %q: %v", limit.Limit, c.want, err)
		}
		client.Close()
	}
}

// TestOtherJSONIsNoLongHeader has something that is no MSL server answer with much JSON: no
// limit is to be raised for that. What begins like a header, and continues, is one.
func TestOtherJSONIsNoLongHeader(t *testing.T) {
	n := newNetwork(t, soft.New())
	for answer, long := range map[string]bool{
		`{"items":[` + strings.Repeat(`{"id":1},`, 2000):                                       false,
		`{` + strings.Repeat(" ", 20_000):                                                      false,
		`{"headerdata":"` + strings.Repeat("A", 20_000):                                        true,
		`{"x":"` + strings.Repeat("A", 1000) + `","signature":"` + strings.Repeat("A", 20_000): true,
	} {
		client := n.pskClient("device")
		client.Limits.Header = 10_000
		client.Transport = transportFunc(func(context.Context, func(io.Writer) error) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(answer)), nil
		})
		_, err := client.Do(t.Context(), &msl.Request{})
		limit := (*msl.LimitError)(nil)
		if errors.As(err, &limit) != long || errors.Is(err, msl.ErrNotMessage) == long {
			t.Errorf("%.20s: %v", answer, err)
		}
	}
}
