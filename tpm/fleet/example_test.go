package fleet_test

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log"
	"net/http"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
	"github.com/msl-hsm/msl-hsm/tpm/identity"
)

// A server at which devices enroll at one path and talk at another. An operator has
// to approve each device, with enroll.Authority.Approve.
func Example_server() {
	store := soft.New() // a real server has its keys in an HSM
	create := func(label string, a keystore.Algorithm) keystore.Key {
		v, err := store.Create(label, a)
		if err != nil {
			log.Fatal(err)
		}
		return v.Key
	}
	state, err := bolt.OpenServer("/var/lib/example/server.db")
	if err != nil {
		log.Fatal(err)
	}
	defer state.Close()
	records, err := enroll.OpenFile("/var/lib/example/enrollments.db")
	if err != nil {
		log.Fatal(err)
	}
	defer records.Close()

	authority, err := fleet.NewAuthority(state, enroll.Config{Records: records})
	if err != nil {
		log.Fatal(err)
	}
	entity := &entityauth.ECCEntity{
		Identity: "server", KeyID: "server-1",
		Key: create("identity", keystore.ECDSAP256).(crypto.Signer),
	}
	endpoint, err := fleet.NewEndpoint(authority, fleet.EndpointConfig{Name: "server", Local: entity})
	if err != nil {
		log.Fatal(err)
	}
	defer endpoint.Close()

	issuer := &msl.Issuer{Name: "server", Store: store, Keys: []msl.IssuerKeys{{
		Version:    1,
		Encryption: create("encryption", keystore.AES128CBC).(keystore.Cipher),
		MAC:        create("mac", keystore.HMACSHA256).(keystore.MAC),
	}}}
	server := &msl.Server{
		Name: "server", Local: entity, Issuer: issuer, State: state, Directory: state,
		Peers:      []msl.EntityScheme{&entityauth.ECC{Directory: state}},
		CountSince: authority.CountSince, // never without it
		Custody:    msl.CustodyImported,  // the server wraps session keys for the TPMs
		KeyExchanges: []msl.Responder{
			&keyx.TPMResponder{Store: store, Verifier: fleet.Verifier{Authority: authority}},
		},
	}
	defer server.Close()

	http.Handle("/enroll", endpoint)
	http.Handle("/", &mslhttp.Handler{Server: server, Handle: hello})
	log.Fatal(http.ListenAndServe(":8080", nil))
}

func hello(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
	_, err := fmt.Fprintf(w, "hello %s", m.Identity)
	return err
}

// A device that enrolls, and then talks with session keys that never leave its TPM.
// server knows the public key of the server, such as an entityauth.ECC.
func Example_device() {
	var server msl.EntityScheme

	const path = "/var/lib/example/tpm.keys"
	store, err := tpm.OpenStore(tpm.Config{URI: "tpm:?state=" + path})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	own, err := identity.Open(store, path+".identity")
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	if err := own.Init(ctx, identity.InitOptions{}, nil); err != nil {
		log.Fatal(err)
	}

	newcomer := fleet.NewClient([]msl.EntityScheme{server}, &mslhttp.Transport{URL: "http://server.example:8080/enroll"})
	defer newcomer.Close()
	err = own.Enroll(ctx, fleet.Exchange(newcomer, "server"), nil)
	if errors.Is(err, identity.ErrPending) {
		log.Fatal("an operator must approve this device")
	}
	if err != nil {
		log.Fatal(err)
	}

	name, credentials, err := own.Credentials()
	if err != nil {
		log.Fatal(err)
	}
	id, err := keystore.KeyID(credentials[0].Signer.Public())
	if err != nil {
		log.Fatal(err)
	}
	client := &msl.Client{
		Local:        &entityauth.ECCEntity{Identity: name, KeyID: id, Key: credentials[0].Signer},
		Peers:        []msl.EntityScheme{server},
		KeyExchanges: []msl.Offerer{&keyx.TPMOfferer{Store: store, Device: &fleet.Device{Store: store, Identity: own}}},
		Transport:    &mslhttp.Transport{URL: "http://server.example:8080/"},
	}
	defer client.Close()
	answer, err := client.Do(ctx, &msl.Request{Encrypted: true, Authenticated: true, Recipient: "server"})
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
}
