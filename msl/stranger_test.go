package msl_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A crowd is a server with eight versions of its keys, and an entity that proves nothing.
type crowd struct {
	*network
	device *faultyStore
	old    msl.Protector // the first version of the keys of service tokens
}

func newCrowd(t *testing.T) *crowd {
	t.Helper()
	c := &crowd{device: newFaultyStore(t)}
	c.network = newNetwork(t, c.device)
	newVersions(t, c.device.Store)
	c.old = must(msl.FindServiceTokenKeys(c.device, "server", "msl"))[""]
	for range 7 {
		newVersions(t, c.device.Store)
	}
	c.server.Issuer.Versions = must(msl.FindVersions(c.device, keystore.RoleIssuerEncryption.Label("msl"), keystore.RoleIssuerMAC.Label("msl")))
	c.server.ServiceTokens = must(msl.FindServiceTokenKeys(c.device, "server", "msl"))
	c.directory["stranger"] = &msl.Entity{Identity: "stranger", Scheme: "NONE"}
	return c
}

// message is one of the stranger, whose header has these members, too.
func (c *crowd) message(members object) []byte {
	return rawKeys{}.message(byScheme("NONE", object{"identity": "stranger"}), one(members), hello)
}

// cost returns how often the device computes a MAC, and is used for something else but for
// signing, until the application runs or the message is refused; and how many service tokens the
// application can read.
func (c *crowd) cost(t *testing.T, message []byte) (macs, others, read int) {
	t.Helper()
	c.device.watch(nil)
	c.server.Serve(t.Context(), "source", bytes.NewReader(message), io.Discard, func(_ context.Context, _ *msl.ResponseWriter, m *msl.Message) error {
		for _, token := range m.ServiceTokens {
			if token.Authentic && string(token.Data) == "x" {
				read++
			}
		}
		return msl.ErrNoReply
	})
	for _, op := range c.device.operations() {
		switch op {
		case "Sum":
			macs++
		case "Sign":
		default:
			others++
		}
	}
	return macs, others, read
}

// forged are service tokens of others, whose keys have that name.
func forged(n int, key string) (list []any) {
	k := rawKeys{key, random(16), random(32)}
	for i := range n {
		list = append(list, k.signed("tokendata", encode(object{"name": fmt.Sprint("forged", i), "encrypted": true, "servicedata": k.encrypt([]byte("x"))})))
	}
	return list
}

func (c *crowd) genuine(n int, unencrypted bool) (list []any) {
	for i := range n {
		list = append(list, json.RawMessage(must(msl.ChangedToken(msl.TokenChange{Name: fmt.Sprint("st", i), Data: []byte("x"), Unencrypted: unencrypted}, c.old))))
	}
	return list
}

// TestStrangersOperations has a sender that proves nothing send tokens, for which the device
// has to work. Genuine tokens are read whatever version made them.
func TestStrangersOperations(t *testing.T) {
	other := rawKeys{"other", random(16), random(32)}
	c := newCrowd(t)
	for name, want := range map[string]struct {
		members            object
		macs, others, read int
	}{
		"forged service tokens": {object{"servicetokens": forged(64, "server service#3")}, 128, 0, 0},
		"of unknown keys":       {object{"servicetokens": forged(64, "unknown")}, 128, 0, 0},
		"of an old version":     {object{"servicetokens": c.genuine(64, false)}, 64, 64, 64},
		"that names no version": {object{"servicetokens": c.genuine(64, true)}, 64 + 7, 0, 64},
		"mixed":                 {object{"servicetokens": slices.Concat(forged(32, "x"), c.genuine(32, false))}, 64 + 64, 32, 32},
		"user ID token":         {object{"useridtoken": other.token(userMembers, "userdata", userData)}, 8, 0, 0},
	} {
		if macs, others, read := c.cost(t, c.message(want.members)); macs != want.macs || others != want.others || read != want.read {
			t.Errorf("%s: %d MACs and %d other operations for %d tokens", name, macs, others, read)
		}
	}
	token := object{"mastertoken": other.token(masterMembers, "sessiondata", sessionData)}
	if macs, others, _ := c.cost(t, sessionRaw.message(token, one(object{"servicetokens": forged(64, "x")}), hello)); macs != 8 || others > 0 {
		t.Errorf("forged master token: %d MACs and %d other operations", macs, others)
	}
}

// TestSendersVersions has a sender with proven identity: all versions are tried for its tokens.
func TestSendersVersions(t *testing.T) {
	c := newCrowd(t)
	client := c.pskClient("device")
	c.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		for i := range 32 {
			w.SetServiceToken(fmt.Sprint(i), []byte("x"), msl.BindNone)
		}
		return echo(ctx, w, m)
	}
	c.server.ServiceTokens = must(msl.FindServiceTokenKeys(newCrowd(t).device, "other", "msl"))
	mustSend(t, client, plainly(), 2)
	c.server.ServiceTokens = must(msl.FindServiceTokenKeys(c.device, "server", "msl"))
	c.device.watch(nil)
	c.handler = echo
	mustSend(t, client, plainly(), 2)
	if n := len(slices.DeleteFunc(slices.Clone(c.device.operations()), func(op string) bool { return op != "Sum" })); n < 32*8 {
		t.Errorf("%d MACs", n)
	}
}
