//go:build cgo && !nopkcs11

package isolated_test

import (
	"errors"
	"reflect"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore/isolated"
)

// TestListForeignKey lists a token in which other software has a key: of no algorithm that is
// known here, and with a label that is not UTF-8.
func TestListForeignKey(t *testing.T) {
	token := newToken(t)
	inProcess, err := hsm.Open(hsm.Config{URI: token.URI, PIN: token.PIN})
	if err != nil {
		t.Fatal(err)
	}
	defer inProcess.Close()
	ctx := pkcs11.New(token.Module)
	slots, err := ctx.GetSlotList(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, slot := range slots {
		if info, err := ctx.GetTokenInfo(slot); err != nil || info.Label != token.Label {
			continue
		}
		session, err := ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err == nil {
			_, err = ctx.GenerateKey(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_DES3_KEY_GEN, nil)}, []*pkcs11.Attribute{
				pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_LABEL, "caf\xe9"),
			})
		}
		if err = errors.Join(err, ctx.CloseSession(session)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := inProcess.List()
	if err != nil || len(want) != 4 || want[0].Label != "caf\xe9" || want[0].Algorithm.Valid() {
		t.Fatalf("%+v, %v", want, err)
	}
	if got, err := open(t, token, hsm.Config{}, isolated.Config{}).List(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
}
