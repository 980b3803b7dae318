package usermsg_test

import (
	"errors"
	"fmt"
	"log"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/usermsg"
)

// texts are those of a server.
func texts() (*usermsg.Catalog, error) {
	c := &usermsg.Catalog{}
	return c, errors.Join(
		c.Add("en", "EMAILPASSWORD_INCORRECT", "The e-mail address or the password is wrong."),
		c.Add("de", "EMAILPASSWORD_INCORRECT", "E-Mail-Adresse oder Kennwort sind falsch."),
		c.Add("en", "250017", "This film is not available in your country."),
	)
}

func Example() {
	catalog, err := texts()
	if err != nil {
		log.Fatal(err)
	}
	server := &msl.Server{Messages: catalog, Capabilities: &msl.Capabilities{Languages: catalog.Languages()}}
	for _, err := range []error{msl.ErrEmailPasswordIncorrect, &msl.AppError{InternalCode: 250017}} {
		fmt.Println(server.Messages.UserMessage(err, []string{"de-AT", "en"}))
	}
	// Output:
	// E-Mail-Adresse oder Kennwort sind falsch.
	// This film is not available in your country.
}
