package identity

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/internal/strictpem"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// addCertificates asks the manufacturer's service for the certificates of an EK that has
// none in the TPM, in the file or in the state file. A missing answer is not a reason to
// stop.
func (i *initialization) addCertificates(ctx context.Context, next *ekState) error {
	old := i.file.state.EK
	known := old != nil && sameEK(old.Public, next.Public) && len(old.Certificates) > 0
	if i.Service == nil || known || len(next.Certificates) > 0 {
		return nil
	}
	var certified crypto.PublicKey
	err := i.do(func(t transport.TPM) (err error) {
		certified, err = certifiedKey(t, next.Kind)
		return err
	})
	if err != nil || certified != nil {
		return err
	}
	if next.Certificates, err = i.ask(ctx, next); err != nil && i.Uncertified != nil {
		i.Uncertified(err)
	}
	return ctx.Err()
}

// ask returns the certificate of the EK, and those that came with it.
func (i *initialization) ask(ctx context.Context, next *ekState) ([][]byte, error) {
	key, err := next.key()
	if err != nil {
		return nil, err
	}
	answer, err := i.Service(ctx, key)
	if err != nil {
		return nil, err
	}
	list := answered(answer)
	own := slices.IndexFunc(list, func(der []byte) bool {
		c, err := proof.ParseCertificate(der)
		return err == nil && keystore.SamePublic(c.PublicKey, key)
	})
	if own < 0 {
		return nil, proof.Fail(ErrEKCertificate, "the answer has no certificate of this EK")
	}
	list = slices.Concat(list[own:own+1], list[:own], list[own+1:])
	return list[:min(len(list), proof.MaxCertificates)], nil
}

// answered returns the certificates in the answer of a manufacturer's service, or in a
// file with such an answer: plain DER, byte strings of CBOR (RFC 8949), PEM, base64, or
// any of these in base64url in a JSON string, as from Intel.
func answered(answer []byte) [][]byte {
	answer = bytes.TrimPrefix(answer, []byte("\ufeff")) // which some editors put before text
	var value any
	if json.Unmarshal(answer, &value) == nil {
		return proof.Certificates(fromJSON(value)...)
	}
	if list := proof.Certificates(answer); len(list) > 0 {
		return list
	}
	return proof.Certificates(fromText(string(answer)))
}

// fromJSON decodes the strings in a JSON value, those of objects in the order of their names.
func fromJSON(value any) (parts [][]byte) {
	switch v := value.(type) {
	case string:
		parts = append(parts, fromText(v))
	case []any:
		for _, element := range v {
			parts = append(parts, fromJSON(element)...)
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, fromJSON(v[name])...)
		}
	}
	return parts
}

// fromText decodes base64 in either alphabet, with or without padding and white space, which
// may be URL-escaped. Other text stays as it is.
func fromText(text string) []byte {
	plain, err := url.PathUnescape(text)
	if err != nil || strictpem.Is([]byte(plain)) { // whose words and dashes could be base64url
		return []byte(cmp.Or(plain, text))
	}
	plain = strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(strings.Join(strings.Fields(plain), "")), "=")
	der, err := base64.RawURLEncoding.DecodeString(plain)
	if err != nil {
		return []byte(text)
	}
	return der
}
