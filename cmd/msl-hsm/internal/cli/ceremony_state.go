//go:build cgo && !nopkcs11

package cli

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/internal/plainfile"
	"github.com/msl-hsm/msl-hsm/internal/safetext"
	"github.com/msl-hsm/msl-hsm/keystore"
)

type ceremonyFlags struct {
	dryRun, goOn, cleanUp bool
	soPIN                 string // source, or empty
}

// A ceremony is one in progress.
type ceremony struct {
	*config.Ceremony
	p       *program
	store   keys.Store
	journal string // path
	state   transcript
}

func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// tokenOf asks the module for the token's identity.
func tokenOf(k *config.Keystore) (t ceremonyToken, err error) {
	uri, err := keys.ResolveOne(k)
	if err != nil {
		return t, err
	}
	all, err := hsm.Slots(uri.ModulePath, k.Initialize)
	if err != nil {
		return t, err
	}
	library, err := plainfile.Read(uri.ModulePath)
	if err != nil {
		return t, fmt.Errorf("PKCS #11 module: %w", err)
	}
	sum := sha256.Sum256(library)
	none := &hsm.NoTokenError{URI: uri.String()}
	var unread error
	for _, one := range all {
		unread = errors.Join(unread, one.Unread())
		if !one.Initialized() {
			continue
		}
		if uri.Matches(&one) {
			return ceremonyToken{uri.String(), one.Label, one.Serial, one.Model, one.Manufacturer, hex.EncodeToString(sum[:])}, nil
		}
		none.Tokens = append(none.Tokens, fmt.Sprintf("%q serial %s", one.Label, safetext.String(one.Serial)))
	}
	if unread != nil {
		return t, unread
	}
	return t, keys.NoToken(k, none)
}

// describe reads back a key, and checks what the ceremony requires of each.
func (x *ceremony) describe(label string) (ceremonyEntry, error) {
	newest, err := keys.Newest(x.store)
	if err != nil {
		return ceremonyEntry{}, err
	}
	e := ceremonyEntry{Made: now(), Info: newest[label]}
	for _, name := range x.Attributes {
		if has, _ := config.AttributeOf(e.Info, name); !has {
			return e, fmt.Errorf("the token does not report that the key %q is %s", label, name)
		}
	}
	if len(e.Weaknesses) > 0 {
		return e, fmt.Errorf("the key %q is not protected: %s", label, strings.Join(e.Weaknesses, ", "))
	}
	k, err := keystore.Find[keystore.Key](x.store, label)
	if err != nil {
		return e, err
	}
	if pair, ok := k.(interface{ Public() crypto.PublicKey }); ok {
		der, err := x509.MarshalPKIXPublicKey(pair.Public())
		e.PublicKey = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
		return e, err
	}
	e.CheckValue, err = checkValue(k)
	return e, err
}
