package msl_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// told collects what is reported to a hook.
type told struct {
	mu   sync.Mutex
	list []msl.HeaderInfo
}

func (h *told) header(i msl.HeaderInfo) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = append(h.list, i)
}

// take returns what was reported since the last time, one line each, with other numbers in
// place of those drawn at random.
func (h *told) take() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var lines []string
	numbers := map[string]string{}
	for _, i := range h.list {
		lines = append(lines, regexp.MustCompile(`\d{7,}`).ReplaceAllStringFunc(i.String(), func(n string) string {
			if numbers[n] == "" {
				numbers[n] = fmt.Sprintf("#%d", len(numbers)+1)
			}
			return numbers[n]
		}))
	}
	h.list = nil
	return strings.Join(lines, "\n")
}

// mirrored compares the reports of two sides on one exchange.
func mirrored(t *testing.T, client, server *told) {
	t.Helper()
	if len(client.list) == 0 || len(client.list) != len(server.list) {
		t.Fatalf("one side was told of %d headers, the other of %d", len(client.list), len(server.list))
	}
	for n, a := range client.list {
		b := server.list[n]
		if b.Sent == a.Sent {
			t.Errorf("header %d has one direction", n)
		}
		b.Sent = a.Sent
		if a.Identity == "" { // an answer under the client's own token
			a.Identity = b.Identity
		}
		if !reflect.DeepEqual(a, b) {
			t.Errorf("header %d:\n%v\n%v", n, a, b)
		}
	}
}

// TestHeaders watches the headers of some exchanges on both sides.
func TestHeaders(t *testing.T) {
	n := softNetwork(t)
	client := n.rsaClient("device")
	client.ServiceTokens = n.server.ServiceTokens
	var sent, received told
	client.Headers, n.server.Headers = sent.header, received.header
	req := secret("x")
	req.ServiceTokens = []msl.TokenChange{{Name: "cookie", Data: []byte("chocolate")}}
	for _, step := range []struct {
		prepare func()
		want    string
	}{
		{func() {}, `sent message_id=#1 entity=device scheme=RSA encrypted=false authenticated=true renewable=true handshake=true key_requests=ASYMMETRIC_WRAPPED compression=GZIP,LZW languages=en
received message_id=#2 entity=server scheme=ECC encrypted=false authenticated=true key_response=ASYMMETRIC_WRAPPED issued_master_token=#3/0 compression=GZIP,LZW languages=en
sent message_id=#4 entity=device master_token=#3/0 encrypted=true authenticated=true renewable=true user_scheme=EMAIL_PASSWORD service_tokens=cookie compression=GZIP,LZW languages=en
received message_id=#5 master_token=#3/0 encrypted=true authenticated=true user_id_token=#6 service_tokens=cookie compression=GZIP,LZW languages=en`},
		{func() { req.NonReplayable = true }, `sent message_id=#1 entity=device master_token=#2/0 encrypted=true authenticated=true non_replayable_id=1 user_id_token=#3 service_tokens=cookie compression=GZIP,LZW languages=en
received message_id=#4 master_token=#2/0 encrypted=true authenticated=true user_id_token=#3 service_tokens=cookie compression=GZIP,LZW languages=en`},
		{func() { n.handler = refusing(&msl.AppError{InternalCode: 250, Message: "a text", User: "a text"}) }, `sent message_id=#1 entity=device master_token=#2/0 encrypted=true authenticated=true non_replayable_id=2 user_id_token=#3 service_tokens=cookie compression=GZIP,LZW languages=en
received message_id=#4 error=FAIL internal_code=250 entity=server scheme=ECC encrypted=false authenticated=true`},
	} {
		step.prepare()
		send(t, client, req)
		mirrored(t, &sent, &received)
		text := fmt.Sprintf("%+v %#v", sent.list, received.list)
		for _, secret := range []string{"secret", "chocolate", "user@example.com", "a text"} {
			if strings.Contains(text, secret) {
				t.Errorf("it has %q: %s", secret, text)
			}
		}
		if got := sent.take(); got != step.want {
			t.Errorf("told\n%s\nwant\n%s", got, step.want)
		}
		received.take()
	}
}

// TestHeadersUnread gets no report of a header that cannot be verified, but one of the answer.
func TestHeadersUnread(t *testing.T) {
	n := softNetwork(t)
	client := n.pskClient("device")
	var seen told
	n.server.Headers = seen.header
	n.intercept = func(m []byte) []byte {
		return bytes.Replace(m, []byte(`"signature":"`), []byte(`"signature":"AAAA`), 1)
	}
	peerError(t, client, plainly())
	if len(seen.list) == 0 || !seen.list[0].Sent || seen.list[0].Response == 0 {
		t.Errorf("told %v", seen.list)
	}
	for _, i := range seen.list {
		if !i.Sent {
			t.Errorf("told of %v", i)
		}
	}
}

// TestHeadersPeer watches a connection between peers, by hooks of its own, and then by
// that of its server.
func TestHeadersPeer(t *testing.T) {
	one, two := newSides(t, "PSK", "PSK")
	var first, second, none, server told
	one.server.Headers, one.client.Headers, two.client.Headers = none.header, none.header, none.header
	two.server.Headers = server.header
	a, b := connect(t, one, two)
	a.Headers, b.Headers = first.header, second.header
	exchange := func() {
		t.Helper()
		done := serveAll(b, echo, 1)
		ask(t, a, secret2("x"))
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	exchange()
	mirrored(t, &first, &second)
	before := len(second.list)
	if len(none.list)+len(server.list) > 0 {
		t.Errorf("told as well: %v %v", none.list, server.list)
	}
	b.Headers = nil
	exchange()
	if len(server.list) == 0 || len(second.list) != before {
		t.Errorf("the server is told of %d", len(server.list))
	}
	if i := server.list[0]; i.PeerMasterToken.Serial < 0 || i.MasterToken.Serial < 0 || i.Identity != "one" {
		t.Errorf("told of %v", i)
	}
}

// TestHeadersAreCopies lets a hook change what it gets.
func TestHeadersAreCopies(t *testing.T) {
	n := softNetwork(t)
	c := n.rsaClient("camera")
	c.Capabilities = &msl.Capabilities{Compression: []string{"GZIP"}, Languages: []string{"en"}}
	c.Headers = func(i msl.HeaderInfo) { clear(i.Compression); clear(i.Languages) }
	if _, _, err := send(t, c, secret("x")); err != nil {
		t.Fatal(err)
	}
	if c.Capabilities.Compression[0] != "GZIP" || c.Capabilities.Languages[0] != "en" {
		t.Errorf("the client has %+v", c.Capabilities)
	}
}

// TestHeaderInfoText escapes what a peer chose, and leaves out what is absent.
func TestHeaderInfoText(t *testing.T) {
	i := msl.HeaderInfo{
		Identity: "a\n b", MasterToken: msl.TokenNumbers{Serial: -1}, Issued: msl.TokenNumbers{Serial: -1}, PeerMasterToken: msl.TokenNumbers{Serial: -1},
		NonReplayableID: -1, UserIDToken: -1, PeerUserIDToken: -1, InternalCode: -1, ServiceTokens: []string{"\x1b[0m"},
	}
	if got := i.String(); got != `received message_id=0 entity=a\u000a\u0020b encrypted=false authenticated=false service_tokens=\u001b[0m` {
		t.Error(got)
	}
	long := i
	long.Languages = strings.Split(strings.Repeat("de ", 100000), " ")
	if got := len(long.String()); got > 1200 {
		t.Errorf("%d bytes", got)
	}
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).LogAttrs(context.Background(), slog.LevelInfo, "header", slog.Any("", i))
	var line map[string]any
	if err := json.NewDecoder(io.TeeReader(&out, io.Discard)).Decode(&line); err != nil || line["entity"] != "a\n b" || line["sent"] != false || line["user_id_token"] != nil {
		t.Errorf("%v, %v", line, err)
	}
}
