package identity_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"

	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/identity"
)

// A device makes its keys, proves them to the authority of its fleet, and has a
// certificate for TLS whose key never leaves the TPM. All of it may be done each
// time that the device starts.
func Example() {
	const state = "/var/lib/example/tpm.keys"
	store, err := tpm.OpenStore(tpm.Config{URI: "tpm:?state=" + state})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	device, err := identity.Open(store, state+".identity")
	if err != nil {
		log.Fatal(err)
	}

	ctx := context.Background()
	if err := device.Init(ctx, identity.InitOptions{}, nil); err != nil {
		log.Fatal(err)
	}
	switch err := device.Enroll(ctx, post, nil); {
	case errors.Is(err, identity.ErrPending):
		status, _ := device.Status()
		fmt.Println("an operator must approve EK hash", status.ID)
		return
	case err != nil:
		log.Fatal(err)
	}

	name, credentials, err := device.Credentials()
	if err != nil {
		log.Fatal(err)
	}
	certificate := tls.Certificate{
		Certificate: [][]byte{credentials[0].Certificate.Raw},
		PrivateKey:  credentials[0].Signer,
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{certificate}}}}
	answer, err := client.Get("https://fleet.example/" + name)
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	fmt.Println(answer.Status)
}

// post sends a message to the authority, over TLS since messages are not secret by
// themselves.
func post(ctx context.Context, request []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://fleet.example/enroll", bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return io.ReadAll(io.LimitReader(answer.Body, identity.MaxMessage+1))
}
