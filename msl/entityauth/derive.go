package entityauth

import (
	"crypto/hmac"
	"crypto/sha256"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
)

// The salt and the info of the derivation (MSL wiki, "Pre-shared Keys").
const (
	wrapSalt = "\x02\x76\x17\x98\x4f\x62\x27\x53\x9a\x63\x0b\x89\x7c\x01\x7d\x69"
	wrapInfo = "\x80\x9f\x82\xa7\xad\xdf\x54\x8d\x3e\xa9\xdd\x06\x7f\xf9\xbb\x91"
)

// DeriveWrappingKey derives the wrapping key of a pre-shared key set, 16 bytes, from its
// other two keys (MSL wiki, "Pre-shared Keys"). The caller must wipe it.
//
// Anyone who can hash the other two keys can compute it. In a PKCS #11 token C_DigestKey
// does that, so the MAC key is kept there as a block (keystore.HMACBlock). Peers that
// receive the wrapping key need not derive it.
func DeriveWrappingKey(encryption, mac []byte) []byte {
	extract := hmac.New(sha256.New, []byte(wrapSalt))
	extract.Write(encryption)
	extract.Write(mac)
	k := extract.Sum(nil)
	defer clear(k)
	extract.Write(make([]byte, sha256.BlockSize)) // over the keys, which it keeps until then
	extract.Sum(nil)                              // over the copy of its state that Sum leaves on the stack
	expand := hmac.New(sha256.New, k)
	expand.Write([]byte(wrapInfo))
	defer lockedmem.ClearRegisters()
	return expand.Sum(nil)[:16]
}
