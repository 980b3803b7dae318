//go:build cgo

package hsmtest_test

import (
	"fmt"
	"log"
	"os"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// A module that answers the second C_GetInfo with CKR_DEVICE_ERROR.
func Example() {
	target, err := softhsm.FindModule()
	if err != nil {
		log.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if _, err := softhsm.Configure(dir); err != nil {
		log.Fatal(err)
	}
	defer os.Unsetenv("SOFTHSM2_CONF")
	m, err := hsmtest.Build(dir, target) // hsmtest.New in a test
	if err != nil {
		log.Fatal(err)
	}
	module := pkcs11.New(m.Path)
	if err := module.Initialize(); err != nil {
		log.Fatal(err)
	}
	defer module.Finalize()

	m.Inject(hsmtest.Fault{Function: "C_GetInfo", Code: pkcs11.CKR_DEVICE_ERROR, Skip: 1, Times: 1})
	for range 3 {
		_, err := module.GetInfo()
		fmt.Println(err)
	}
	fmt.Println(m.Counters().Fired)
	// It prints:
	// <nil>
	// pkcs11: 0x30: CKR_DEVICE_ERROR
	// <nil>
	// 1
}
