package msl_test

import (
	"context"
	"crypto"
	"crypto/rsa"
	"fmt"
	"io"
	"log"
	"net"
	"net/http/httptest"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// key makes a key. A real program makes its keys once, with msl-hsm key create,
// and looks them up; and its store is that of package hsm or tpm.
func key[K any](store *soft.Store, label string, a keystore.Algorithm) K {
	v, err := store.Create(label, a)
	if err != nil {
		log.Fatal(err)
	}
	return v.Key.(K)
}

// An entities directory has the entities that may send messages.
type entities map[string]*msl.Entity

func (e entities) Entity(_ context.Context, identity string) (*msl.Entity, error) {
	if entity, ok := e[identity]; ok {
		return entity, nil
	}
	return nil, keystore.ErrNotFound
}

// newServer is a server in ten lines.
func newServer(store *soft.Store, known entities) *msl.Server {
	return &msl.Server{
		Name:         "server",
		Local:        &entityauth.RSAEntity{Identity: "server", KeyID: "1", Key: key[crypto.Signer](store, "identity", keystore.RSASign2048)},
		Peers:        []msl.EntityScheme{&entityauth.RSA{Directory: known}, &entityauth.None{Directory: known}},
		KeyExchanges: []msl.Responder{&keyx.AsymmetricWrapped{Store: store}},
		Issuer: &msl.Issuer{Name: "server", Store: store, Keys: []msl.IssuerKeys{{
			Version:    1,
			Encryption: key[keystore.Cipher](store, "issuer-encryption", keystore.AES128CBC),
			MAC:        key[keystore.MAC](store, "issuer-mac", keystore.HMACSHA256),
		}}},
		State: &msl.MemoryState{},
	}
}

// newClient is a client in ten lines. It accepts only the server with that public key.
func newClient(store *soft.Store, identity crypto.Signer, server crypto.PublicKey) *msl.Client {
	return &msl.Client{
		Local:        &entityauth.RSAEntity{Identity: "device", KeyID: "1", Key: identity},
		Peers:        []msl.EntityScheme{&entityauth.RSA{Directory: entities{"server": rsaEntity("server", server)}}},
		KeyExchanges: []msl.Offerer{&keyx.AsymmetricWrapped{Store: store}},
	}
}

func rsaEntity(identity string, public crypto.PublicKey) *msl.Entity {
	return &msl.Entity{Identity: identity, Scheme: "RSA", KeyID: "1", PublicKey: public.(*rsa.PublicKey)}
}

// A server behind net/http, and a client that sends it a secret. The first
// request is two exchanges, since the keys that encrypt must come first; the
// second is one.
func Example() {
	store, device := soft.New(), soft.New()
	own := key[crypto.Signer](device, "identity", keystore.RSASign2048)
	server := newServer(store, entities{"device": rsaEntity("device", own.Public())})
	defer server.Close()
	web := httptest.NewServer(&mslhttp.Handler{Server: server, Handle: func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		data, err := io.ReadAll(m.Body)
		fmt.Fprintf(w, "%s said %q, encrypted: %v", m.Identity, data, m.Encrypted)
		return err
	}})
	defer web.Close()

	client := newClient(device, own, server.Local.(*entityauth.RSAEntity).Key.Public())
	client.Transport = &mslhttp.Transport{URL: web.URL}
	defer client.Close()
	for range 2 {
		answer, err := client.Do(context.Background(), &msl.Request{
			Encrypted: true, Authenticated: true, Recipient: "server", Body: msl.BytesBody([]byte("hello")),
		})
		if err != nil {
			log.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		fmt.Printf("%s (%d messages, %v)\n", text, answer.Messages, err)
	}
	// Output:
	// device said "hello", encrypted: true (4 messages, <nil>)
	// device said "hello", encrypted: true (2 messages, <nil>)
}

// In a peer-to-peer network each side is a server and a client, and issues
// tokens for the other. Here they share a pipe; any [io.ReadWriter] will do.
func Example_peerToPeer() {
	oneKeys, twoKeys := soft.New(), soft.New()
	one, two := newServer(oneKeys, entities{}), newServer(twoKeys, entities{})
	one.Name, one.Local.(*entityauth.RSAEntity).Identity = "one", "one"
	two.Name, two.Local.(*entityauth.RSAEntity).Identity = "two", "two"
	know := func(us, peer *msl.Server) { // who the other side is
		signer := peer.Local.(*entityauth.RSAEntity).Key
		us.Peers = []msl.EntityScheme{&entityauth.RSA{Directory: entities{peer.Name: rsaEntity(peer.Name, signer.Public())}}}
	}
	know(one, two)
	know(two, one)
	holder := func(s *msl.Server, store *soft.Store) *msl.Client { // of the tokens that the other side issues
		return &msl.Client{Local: s.Local, KeyExchanges: []msl.Offerer{&keyx.AsymmetricWrapped{Store: store}}}
	}
	a, b := net.Pipe()
	go func() {
		defer b.Close()
		conn := msl.NewConn(b, two, holder(two, twoKeys))
		conn.Serve(context.Background(), func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			_, err := fmt.Fprintf(w, "two greets %s", m.Identity)
			return err
		})
	}()
	conn := msl.NewConn(a, one, holder(one, oneKeys))
	answer, err := conn.Request(context.Background(), &msl.Request{Encrypted: true, Authenticated: true, Recipient: "two"})
	if err != nil {
		log.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	fmt.Printf("%s, %v", text, err)
	// Output: two greets one, <nil>
}
