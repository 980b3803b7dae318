package enroll_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// A server enrolls the devices of a fleet. It accepts TPMs of trusted manufacturers, and
// lets all others wait for a person.
func Example() {
	records, err := enroll.OpenFile("/var/lib/example/enrollments.db")
	if err != nil {
		log.Fatal(err)
	}
	defer records.Close()
	roots, err := os.ReadFile("/etc/example/tpm-manufacturers.pem")
	if err != nil {
		log.Fatal(err)
	}
	bundle, err := enroll.ParseBundle(roots)
	if err != nil {
		log.Fatal(err)
	}
	ca, key := openCA()
	authority, err := enroll.NewAuthority(enroll.Config{
		Records: records, Policy: enroll.Policy{Bundle: bundle}, Certificate: ca, Key: key,
	})
	if err != nil {
		log.Fatal(err)
	}

	http.HandleFunc("POST /enroll", func(w http.ResponseWriter, r *http.Request) {
		request, err := io.ReadAll(http.MaxBytesReader(w, r.Body, enroll.MaxMessage))
		if err != nil {
			http.Error(w, "unreadable message", http.StatusBadRequest)
			return
		}
		response, err := authority.Handle(r.Context(), request)
		if err != nil {
			log.Print(err) // the device reads why in the response
		}
		w.Write(response)
	})
	log.Fatal(http.ListenAndServeTLS(":443", "/etc/example/server.pem", "/etc/example/server.key", nil))
}

// An operator looks at the devices that wait, and approves one whose EK hash is known
// from the factory.
func ExampleAuthority_Approve() {
	var authority *enroll.Authority // as in the example of the package
	ctx := context.Background()
	devices, err := authority.List(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range devices {
		if d.State == enroll.Pending {
			fmt.Println(d.ID, d.Waits)
		}
	}
	id, err := enroll.ParseID("2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae")
	if err != nil {
		log.Fatal(err)
	}
	if err := authority.Approve(ctx, id, "camera-7", "serial number 4711"); err != nil {
		log.Fatal(err)
	}
}

// openCA stands for the CA of the fleet, whose key should be in an HSM.
func openCA() (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	ca, err := enroll.NewCA(key, "Example Fleet CA", time.Now(), 10*365*24*time.Hour)
	if err != nil {
		log.Fatal(err)
	}
	return ca, key
}

// A device is known by the hash of the public key of its EK.
func ExampleParseID() {
	id, err := enroll.ParseID("2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae")
	fmt.Println(id, err)
	_, err = enroll.ParseID("2c26b46b")
	fmt.Println(err)
	// Output:
	// 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae <nil>
	// enroll: an EK hash must be 64 hexadecimal digits
}
