//go:build cgo && !nopkcs11

package cli

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"fmt"
	"io"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

// rich makes the server and a client of it know users, service tokens and GZIP.
func (b *bench) rich() *msl.Client {
	gzip := &msl.Capabilities{Compression: []string{"GZIP"}}
	b.server.Capabilities = gzip
	b.server.Users = []msl.UserScheme{&userauth.EmailPassword{Verify: func(_ context.Context, email string, _ []byte) (string, error) { return email, nil }}}
	b.server.ServiceTokens = msl.ServiceTokenKeys{"": msl.SymmetricKey{KeyID: "st",
		Encryption: b.create(b.store, "service-encryption", keystore.AES128CBC).(keystore.Cipher),
		MAC:        b.create(b.store, "service-mac", keystore.HMACSHA256).(keystore.MAC)}}
	c := b.device("PSK")()
	c.Capabilities = gzip
	c.UserAuth = func(_ context.Context, user string, _ msl.ResponseCode) (*msl.UserAuthData, error) {
		return userauth.EmailPasswordData(user, []byte("secret")), nil
	}
	return c
}

// BenchmarkRichEcho is BenchmarkEcho with a user ID token, two service tokens and
// GZIP. Its floor is only the cryptography of both sides, on data of that size, with
// the server's keys in its store.
func BenchmarkRichEcho(b *testing.B) {
	for _, place := range benchStores {
		b.Run(place.name, func(b *testing.B) {
			n := newBench(b, place.open(b))
			c := n.rich()
			defer c.Close()
			n.handle = func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
				if len(m.ServiceTokens) == 0 {
					w.SetServiceToken("settings", bytes.Repeat([]byte("some settings "), 16), msl.BindEntity)
					w.SetServiceToken("profile", bytes.Repeat([]byte("a profile "), 16), msl.BindUser)
				}
				_, err := io.Copy(w, m.Body)
				return err
			}
			req := &msl.Request{Encrypted: true, Authenticated: true, RequestTokens: true, User: "user@example.com",
				Body: msl.BytesBody(bytes.Repeat([]byte("0123456789abcdef"), 64))}
			exchange(b, c, req)
			exchange(b, c, req)
			measure(b, n, 1, func() { exchange(b, c, req) })
		})
		b.Run(place.name+"/floor", func(b *testing.B) {
			n := newBench(b, place.open(b))
			const header, payload = 2560, 256
			near, far := newFloor(b, soft.New(), header, payload), newFloor(b, n.store, header, payload)
			measure(b, n, 1, func() {
				for _, side := range []floor{near, far} {
					side.protect(b)
					side.open(b)
				}
			})
		})
	}
}

// BenchmarkKeyExchange is a client's first message with each key exchange, where
// custody lets the process see key bytes. The client has its key pair already.
func BenchmarkKeyExchange(b *testing.B) {
	for _, place := range benchStores {
		for _, x := range []string{"ASYMMETRIC_WRAPPED", "JWE_RSA", "JWEJS_RSA", "JWK_RSA", "DIFFIE_HELLMAN"} {
			b.Run(place.name+"/"+x, func(b *testing.B) {
				n := newBench(b, place.open(b))
				client := n.exchanger(x)
				measure(b, n, 1, func() {
					c := client()
					defer c.Close()
					echo(b, c, true)
				})
			})
		}
	}
}

// exchanger makes clients that offer one key exchange, and the server to answer it.
func (b *bench) exchanger(name string) func() *msl.Client {
	device := soft.New()
	b.Cleanup(func() { device.Close() })
	key := b.create(device, "identity", keystore.RSASign2048).(crypto.Signer)
	b.directory["device"] = &msl.Entity{Identity: "device", Scheme: "RSA", KeyID: "device", PublicKey: key.Public().(*rsa.PublicKey)}
	var ours msl.Offerer
	var theirs msl.Responder
	switch name {
	case "ASYMMETRIC_WRAPPED":
		pair := b.create(device, "exchange", keystore.RSAUnwrap2048).(keyx.UnwrappingPair)
		ours, theirs = &keyx.AsymmetricWrapped{Store: device, KeyPair: pair}, &keyx.AsymmetricWrapped{Store: b.store}
	case "DIFFIE_HELLMAN":
		group, _ := keyx.FindDHGroup("modp2048")
		groups := []keyx.DHGroup{group}
		ours, theirs = &keyx.DiffieHellman{Store: device, Groups: groups}, &keyx.DiffieHellman{Store: b.store, Groups: groups}
	default:
		pair := b.create(device, "exchange", keystore.RSADecrypt2048).(keyx.DecryptingPair)
		m := keyx.JOSEMechanism(name)
		ours, theirs = &keyx.AsymmetricJOSE{Mechanism: m, Store: device, KeyPair: pair}, &keyx.AsymmetricJOSE{Mechanism: m, Store: b.store}
	}
	b.server.Custody, b.server.KeyExchanges = msl.CustodyImported, []msl.Responder{theirs}
	server := benchDirectory{"server": {Identity: "server", Scheme: "RSA", KeyID: "server", PublicKey: b.public}}
	return func() *msl.Client {
		return &msl.Client{
			Local: &entityauth.RSAEntity{Identity: "device", KeyID: "device", Key: key}, Custody: msl.CustodyImported,
			KeyExchanges: []msl.Offerer{ours}, Transport: b, Peers: []msl.EntityScheme{&entityauth.RSA{Directory: server}},
		}
	}
}

// BenchmarkPayload sends data to the server, which throws it away, or gets it from
// there. Its floor is the cryptography of both sides, chunk by chunk.
func BenchmarkPayload(b *testing.B) {
	const chunk = 64 << 10
	for _, place := range benchStores {
		for _, size := range []int64{1 << 20, 64 << 20} {
			for _, up := range []bool{true, false} {
				direction := map[bool]string{true: "up", false: "down"}[up]
				b.Run(fmt.Sprintf("%s/%dMiB/%s", place.name, size>>20, direction), func(b *testing.B) {
					n := newBench(b, place.open(b))
					c := n.device("PSK")()
					defer c.Close()
					echo(b, c, true)
					req := &msl.Request{Encrypted: true, Authenticated: true}
					if up {
						req.Body = func() (io.ReadCloser, error) { return io.NopCloser(io.LimitReader(zeros{}, size)), nil }
					}
					n.handle = func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
						_, err := io.Copy(io.Discard, m.Body)
						if err == nil && !up {
							_, err = io.CopyN(w, zeros{}, size)
						}
						return err
					}
					b.SetBytes(size)
					measure(b, n, 1, func() { exchange(b, c, req) })
				})
			}
		}
		b.Run(place.name+"/1MiB/floor", func(b *testing.B) {
			n := newBench(b, place.open(b))
			const encoded = chunk * 4 / 3 // the Base64 of the data is encrypted
			near, far := newFloor(b, soft.New(), encoded), newFloor(b, n.store, encoded)
			b.SetBytes(1 << 20)
			measure(b, n, 1, func() {
				for range (1 << 20) / chunk {
					near.protect(b)
					far.open(b)
				}
			})
		})
	}
}

// zeros is data without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// exchange does a request, and reads the answer without looking at it.
func exchange(b testing.TB, c *msl.Client, req *msl.Request) {
	r, err := c.Do(context.Background(), req)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		b.Fatal(err)
	}
	r.Body.Close()
}

// A floor does the cryptography of one side on one message, and nothing else.
type floor struct {
	cipher  keystore.Cipher
	mac     keystore.MAC
	clear   [][]byte // to be protected
	secrets [][]byte // the same, encrypted
}

func newFloor(b testing.TB, s keystore.Store, sizes ...int) floor {
	encryption, err := s.Generate(keystore.AES128CBC)
	if err != nil {
		b.Fatal(err)
	}
	signature, err := s.Generate(keystore.HMACSHA256)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { encryption.Close(); signature.Close() })
	f := floor{cipher: encryption.(keystore.Cipher), mac: signature.(keystore.MAC)}
	for _, size := range sizes {
		data := make([]byte, size)
		secret, err := f.cipher.Encrypt(floorIV[:], data)
		if err != nil {
			b.Fatal(err)
		}
		f.clear, f.secrets = append(f.clear, data), append(f.secrets, secret)
	}
	return f
}

var floorIV [16]byte

func (f floor) protect(b testing.TB) {
	for _, data := range f.clear {
		secret, err := f.cipher.Encrypt(floorIV[:], data)
		if err == nil {
			_, err = f.mac.Sum(secret)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func (f floor) open(b testing.TB) {
	for _, secret := range f.secrets {
		_, err := f.mac.Sum(secret)
		if err == nil {
			_, err = f.cipher.Decrypt(floorIV[:], secret)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
