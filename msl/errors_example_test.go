package msl_test

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/msl/usermsg"
)

// A service refuses with an error of its own, and its users read why in their language.
func ExampleAppError() {
	store, device := soft.New(), soft.New()
	own := key[crypto.Signer](device, "identity", keystore.RSASign2048)
	server := newServer(store, entities{"device": rsaEntity("device", own.Public())})
	defer server.Close()
	texts := &usermsg.Catalog{}
	if err := errors.Join(
		texts.Add("en", "250017", "This film is not available in your country."),
		texts.Add("de", "250017", "Dieser Film ist in Ihrem Land nicht verfügbar."),
	); err != nil {
		fmt.Println(err)
	}
	server.Messages = texts
	web := httptest.NewServer(&mslhttp.Handler{Server: server, Handle: func(_ context.Context, _ *msl.ResponseWriter, m *msl.Message) error {
		film, err := io.ReadAll(m.Body)
		return &msl.AppError{Response: msl.Fail, InternalCode: 250017, Message: "no license for " + strings.ToUpper(string(film)), Err: err}
	}})
	defer web.Close()

	client := newClient(device, own, server.Local.(*entityauth.RSAEntity).Key.Public())
	client.Transport = &mslhttp.Transport{URL: web.URL}
	client.Capabilities = &msl.Capabilities{Languages: []string{"de-AT", "en"}}
	defer client.Close()
	_, err := client.Do(context.Background(), &msl.Request{
		Encrypted: true, Authenticated: true, Recipient: "server", Body: msl.BytesBody([]byte("film 17")),
	})
	var refused *msl.PeerError
	if errors.As(err, &refused) {
		fmt.Println(refused.Response, refused.InternalCode, refused.Message)
		fmt.Println(refused.User)
	}
	// Output:
	// FAIL 250017 no license for FILM 17
	// Dieser Film ist in Ihrem Land nicht verfügbar.
}
