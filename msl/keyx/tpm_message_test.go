package keyx_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"errors"
	"io"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/identity"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// entities is a directory of public keys.
type entities map[string]*msl.Entity

func (e entities) Entity(_ context.Context, identity string) (*msl.Entity, error) {
	if entity, ok := e[identity]; ok {
		return entity, nil
	}
	return nil, keystore.ErrNotFound
}

func eccEntity(identity string, key crypto.PublicKey) *msl.Entity {
	return &msl.Entity{Identity: identity, Scheme: "ECC", KeyID: "1", PublicKey: key.(*ecdsa.PublicKey)}
}

// network is a server with its keys in memory, and the device of the pair.
func (p *pair) network(t testing.TB) (*msl.Server, *msl.Client) {
	t.Helper()
	store := soft.New()
	t.Cleanup(func() { store.Close() })
	make := func(label string, a keystore.Algorithm) keystore.Key {
		return must[keystore.Version](t)(store.Create(label, a)).Key
	}
	_, credentials, err := p.identity.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	own := must[[]identity.Credential](t)(credentials, err)[0].Signer
	identity := make("identity", keystore.ECDSAP256).(crypto.Signer)
	server := &msl.Server{
		Name: "server", Local: &entityauth.ECCEntity{Identity: "server", KeyID: "1", Key: identity},
		Peers:        []msl.EntityScheme{&entityauth.ECC{Directory: entities{p.name: eccEntity(p.name, own.Public())}}},
		KeyExchanges: []msl.Responder{p.responder}, Custody: msl.CustodyImported,
		Issuer: &msl.Issuer{Name: "server", Store: p.server, Keys: []msl.IssuerKeys{{
			Version: 1, Encryption: make("encryption", keystore.AES128CBC).(keystore.Cipher), MAC: make("mac", keystore.HMACSHA256).(keystore.MAC),
		}}},
		State: &msl.MemoryState{},
	}
	client := &msl.Client{
		Local:        &entityauth.ECCEntity{Identity: p.name, KeyID: "1", Key: own},
		Peers:        []msl.EntityScheme{&entityauth.ECC{Directory: entities{"server": eccEntity("server", identity.Public())}}},
		KeyExchanges: []msl.Offerer{p.asker},
	}
	if p.outside != nil {
		client.Custody = msl.CustodyImported
	}
	web := httptest.NewServer(&mslhttp.Handler{Server: server, Handle: func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		_, err := io.Copy(w, m.Body)
		return err
	}})
	client.Transport = &mslhttp.Transport{URL: web.URL}
	t.Cleanup(func() { web.Close(); client.Close(); server.Close() })
	return server, client
}

func say(c *msl.Client, text string) (answer string, messages int, err error) {
	r, err := c.Do(context.Background(), &msl.Request{
		Encrypted: true, Authenticated: true, Recipient: "server", Body: msl.BytesBody([]byte(text)),
	})
	if err != nil {
		return "", 0, err
	}
	all, err := io.ReadAll(r.Body)
	return string(all), r.Messages, errors.Join(err, r.Body.Close())
}

// TestTPMMessages sends messages, renews the master token, and ends with the
// device's enrolment.
func TestTPMMessages(t *testing.T) {
	for what, quirk := range map[string]tpmtest.Quirk{"imported": nil, "without AES": tpmtest.WithoutEncryptDecrypt} {
		t.Run(what, func(t *testing.T) {
			p := newPair(t, quirk)
			server, client := p.network(t)
			server.Issuer.RenewAfter = time.Nanosecond // with every message
			for i := range 3 {
				answer, messages, err := say(client, "hello")
				if err != nil || answer != "hello" || (i > 0) != (messages == 2) {
					t.Fatalf("%q after %d messages, %v", answer, messages, err)
				}
			}
			if len(p.server.raw) < 6 {
				t.Errorf("%d keys for three exchanges", len(p.server.raw))
			}
			all := must[[]enroll.Record](t)(p.office.List(context.Background()))
			if err := p.office.RevokeDevice(context.Background(), all[0].ID, "stolen"); err != nil {
				t.Fatal(err)
			}
			drawn := len(p.server.raw)
			_, _, err := say(client, "hello")
			var peer *msl.PeerError
			if !errors.As(err, &peer) || peer.Code != msl.ErrKeyXIncorrectData {
				t.Errorf("after the revocation: %v", err)
			}
			if len(p.server.raw) != drawn {
				t.Error("keys were drawn for a revoked device")
			}
			client.Close()
			p.isEmpty(t)
		})
	}
}

// TestTPMWrongClock has a device whose clock is wrong: it learns the server's time with the first
// refusal. One that is refused for another reason is not asked again.
func TestTPMWrongClock(t *testing.T) {
	for _, ahead := range []time.Duration{time.Hour, -365 * 24 * time.Hour} {
		p := newPair(t, nil)
		_, client := p.network(t)
		client.Time = func() time.Time { return time.Now().Add(ahead) }
		if answer, messages, err := say(client, "hello"); err != nil || answer != "hello" || messages != 6 {
			t.Errorf("ahead by %v: %q after %d messages, %v", ahead, answer, messages, err)
		}
		all := must[[]enroll.Record](t)(p.office.List(context.Background()))
		if err := p.office.RevokeDevice(context.Background(), all[0].ID, "stolen"); err != nil {
			t.Fatal(err)
		}
		_, revoked := p.network(t)
		revoked.Time = client.Time
		_, _, err := say(revoked, "hello")
		var peer *msl.PeerError
		if !errors.As(err, &peer) || peer.Code != msl.ErrKeyXIncorrectData {
			t.Errorf("after the revocation: %v", err)
		}
		client.Close()
	}
}

// TestTPMCustody has a side that must not see session keys.
func TestTPMCustody(t *testing.T) {
	p := newPair(t, nil)
	server, client := p.network(t)
	server.Custody = msl.CustodySealed
	_, _, err := say(client, "hello")
	var peer *msl.PeerError
	if !errors.As(err, &peer) || peer.Code != msl.ErrUnidentifiedKeyXScheme || len(p.server.raw) > 0 {
		t.Errorf("a server of sealed custody: %v, %d keys", err, len(p.server.raw))
	}
	p = newPair(t, tpmtest.WithoutEncryptDecrypt)
	_, client = p.network(t)
	client.Custody = msl.CustodySealed
	if _, _, err := say(client, "hello"); err == nil || len(p.server.raw) > 0 {
		t.Errorf("a client of sealed custody without AES: %v, %d keys", err, len(p.server.raw))
	}
	p.isEmpty(t)
}

// BenchmarkTPMMessage is a message and its answer, with the number of commands
// to the TPM: of a session, and of one that is new.
func BenchmarkTPMMessage(b *testing.B) {
	for name, quirk := range map[string]tpmtest.Quirk{"aes-inside": nil, "aes-outside": tpmtest.WithoutEncryptDecrypt} {
		for _, fresh := range []bool{false, true} {
			b.Run(name+map[bool]string{true: "/first", false: "/next"}[fresh], func(b *testing.B) {
				p := newPair(b, quirk)
				server, client := p.network(b)
				if fresh {
					server.Issuer.RenewAfter = time.Nanosecond
				}
				if _, _, err := say(client, "hello"); err != nil {
					b.Fatal(err)
				}
				before := p.commands.Load()
				for b.Loop() {
					if _, _, err := say(client, "hello"); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(p.commands.Load()-before)/float64(b.N), "commands/op")
			})
		}
	}
}
