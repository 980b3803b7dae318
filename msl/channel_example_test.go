package msl_test

import (
	"bufio"
	"context"
	"crypto"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// exampleEntities know each other by their RSA keys.
type exampleEntities map[string]crypto.PublicKey

func (e exampleEntities) Entity(_ context.Context, identity string) (*msl.Entity, error) {
	if key, ok := e[identity]; ok {
		return &msl.Entity{Identity: identity, Scheme: "RSA", KeyID: identity, PublicKey: key}, nil
	}
	return nil, keystore.ErrNotFound
}

// add makes an entity with keys in memory, and its server and client.
func (e exampleEntities) add(identity string) (*msl.Server, *msl.Client) {
	store := soft.New()
	create := func(label string, a keystore.Algorithm) keystore.Key {
		v, err := store.Create(label, a)
		if err != nil {
			log.Fatal(err)
		}
		return v.Key
	}
	key := create("identity", keystore.RSASign2048).(crypto.Signer)
	e[identity] = key.Public()
	own := &entityauth.RSAEntity{Identity: identity, KeyID: identity, Key: key}
	peers := []msl.EntityScheme{&entityauth.RSA{Directory: e}}
	exchange := &keyx.AsymmetricWrapped{Store: store}
	server := &msl.Server{
		Name: identity, Local: own, Peers: peers, KeyExchanges: []msl.Responder{exchange},
		Issuer: &msl.Issuer{Name: identity, Store: store, Keys: []msl.IssuerKeys{{
			Version:    1,
			Encryption: create("encryption", keystore.AES128CBC).(keystore.Cipher),
			MAC:        create("mac", keystore.HMACSHA256).(keystore.MAC),
		}}},
		State: &msl.MemoryState{},
	}
	return server, &msl.Client{Local: own, Peers: peers, KeyExchanges: []msl.Offerer{exchange}}
}

// upper is an application that answers each line as it comes.
func upper(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
	lines := bufio.NewScanner(m.Body)
	for lines.Scan() {
		fmt.Fprintln(w, strings.ToUpper(lines.Text()))
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return lines.Err()
}

// converse sends a line, waits for the answer, and sends another. do is
// Client.Do, or Conn.Request.
func converse(do func(context.Context, *msl.Request) (*msl.Response, error)) error {
	// An ordinary request brings the tokens, and a channel needs them.
	r, err := do(context.Background(), &msl.Request{Encrypted: true, Authenticated: true, RequestTokens: true, Body: msl.BytesBody([]byte("hello\n"))})
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return err
	}
	if err := r.Body.Close(); err != nil {
		return err
	}
	body, out := io.Pipe()
	go fmt.Fprintln(out, "is anybody there?")
	r, err = do(context.Background(), &msl.Request{Encrypted: true, Authenticated: true, Interactive: true,
		Body: func() (io.ReadCloser, error) { return body, nil }})
	if err != nil {
		return err
	}
	defer r.Body.Close()
	in := bufio.NewScanner(r.Body)
	for in.Scan() {
		fmt.Println(in.Text())
		if !strings.HasPrefix(in.Text(), "IS") {
			out.Close() // the channel ends when both sides have said all
			continue
		}
		fmt.Fprintln(out, "good.")
	}
	return in.Err()
}

// A channel between peers over TCP: both issue tokens, and after one request and
// one answer the data goes both ways without any further handshake.
func ExampleConn() {
	entities := exampleEntities{}
	ourServer, ourClient := entities.add("us")
	theirServer, theirClient := entities.add("them")

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		defer conn.Close()
		c := msl.NewConn(conn, theirServer, theirClient)
		for err == nil {
			err = c.Serve(context.Background(), upper)
		}
	}()

	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	if err := converse(msl.NewConn(conn, ourServer, ourClient).Request); err != nil {
		log.Fatal(err)
	}
	// Output:
	// IS ANYBODY THERE?
	// GOOD.
}

// A channel over a WebSocket, between a service that issues all tokens and its
// client. Peers use [msl.NewConn] on the same connections.
func Example_webSocket() {
	entities := exampleEntities{}
	server, _ := entities.add("service")
	_, client := entities.add("device")

	h := httptest.NewServer(&mslhttp.WebSocketHandler{
		Serve: func(ctx context.Context, conn net.Conn, r *http.Request) error {
			return server.ServeStream(ctx, r.RemoteAddr, conn, upper)
		},
	})
	defer h.Close()

	conn, err := (&mslhttp.WebSocketDialer{}).Dial(context.Background(), h.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	client.Transport = &msl.StreamTransport{RW: conn}
	if err := converse(client.Do); err != nil {
		log.Fatal(err)
	}
	// Output:
	// IS ANYBODY THERE?
	// GOOD.
}

// A duplex is a custom transport: anything that reads and writes.
type duplex struct {
	io.Reader
	io.Writer
}

// Messages over a custom transport.
func ExampleStreamTransport() {
	entities := exampleEntities{}
	server, _ := entities.add("service")
	_, client := entities.add("device")

	requests, toServer := io.Pipe()
	answers, toClient := io.Pipe()
	served := make(chan error)
	go func() {
		served <- server.ServeStream(context.Background(), "pipe", duplex{requests, toClient}, upper)
	}()

	client.Transport = &msl.StreamTransport{RW: duplex{answers, toServer}}
	for _, text := range []string{"first", "second"} {
		r, err := client.Do(context.Background(), &msl.Request{Encrypted: true, Recipient: "service", Body: msl.BytesBody([]byte(text))})
		if err != nil {
			log.Fatal(err)
		}
		answer, err := io.ReadAll(r.Body)
		if err != nil {
			log.Fatal(err)
		}
		r.Body.Close()
		fmt.Printf("%s", answer)
	}
	toServer.Close() // between two messages
	fmt.Println(<-served)
	// Output:
	// FIRST
	// SECOND
	// <nil>
}
