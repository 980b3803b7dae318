package msl_test

import (
	"errors"
	"maps"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// with returns a copy of o with changed members; a nil value takes one away.
func with(o object, changes object) object {
	all := object{}
	maps.Copy(all, o)
	for name, v := range changes {
		if all[name] = v; v == nil {
			delete(all, name)
		}
	}
	return all
}

var (
	masterMembers = object{"renewalwindow": 1700003600, "expiration": 1700007200, "sequencenumber": 1, "serialnumber": 7}
	sessionData   = object{"identity": "client1", "encryptionkey": sessionRaw.encryption, "hmackey": sessionRaw.mac,
		"encryptionalgorithm": "AES", "signaturealgorithm": "HmacSHA256", "signaturekey": sessionRaw.mac}
	userMembers = object{"renewalwindow": 1700003600, "expiration": 1700007200, "mtserialnumber": 7, "serialnumber": 8}
	userData    = object{"identity": "user1@foo.com"}
)

const tooBig int64 = 1<<53 + 1

// A tokenCase is a token that is wrong in one way. accepted tells that the code
// is 0 because nothing is wrong.
type tokenCase struct {
	name     string
	token    object
	code     msl.Code
	accepted bool
}

func (c tokenCase) check(t *testing.T, err error) {
	t.Helper()
	if c.accepted && err != nil || !c.accepted && !errors.Is(err, c.code) {
		t.Errorf("%s: %v, want %v", c.name, err, c.code)
	}
}

// outerCases are the cases that master tokens and user ID tokens share.
func outerCases(valid object, missing, parse msl.Code) []tokenCase {
	return []tokenCase{
		{name: "valid", token: valid, accepted: true},
		{name: "unknown member", token: with(valid, object{"x": 1}), accepted: true},
		{name: "no tokendata", token: with(valid, object{"tokendata": nil}), code: msl.ErrMSLParseError},
		{name: "tokendata not Base64", token: with(valid, object{"tokendata": "*"}), code: msl.ErrMSLParseError},
		{name: "empty tokendata", token: with(valid, object{"tokendata": ""}), code: missing},
		{name: "empty tokendata, no signature", token: object{"tokendata": ""}, code: missing},
		{name: "no signature", token: with(valid, object{"signature": nil}), code: msl.ErrMSLParseError},
		{name: "signature a number", token: with(valid, object{"signature": 1}), code: msl.ErrMSLParseError},
		{name: "tokendata no object", token: issuerKeys.signed("tokendata", []byte("[]")), code: parse},
		{name: "tokendata of garbage", token: issuerKeys.signed("tokendata", []byte("x")), code: parse},
		{name: "tokendata with a duplicate", token: issuerKeys.signed("tokendata", []byte(`{"a":1,"a":1}`)), code: parse},
	}
}

func masterCases() []tokenCase {
	build := func(members, data object) object {
		return issuerKeys.token(with(masterMembers, members), "sessiondata", data)
	}
	valid := build(nil, sessionData)
	inner := func(changes object) object { return build(nil, with(sessionData, changes)) }
	return append(outerCases(valid, msl.ErrMasterTokenTokenDataMissing, msl.ErrMasterTokenTokenDataParseError), []tokenCase{
		{name: "no serialnumber", token: build(object{"serialnumber": nil}, sessionData), code: msl.ErrMasterTokenTokenDataParseError},
		{name: "sequencenumber a double", token: build(object{"sequencenumber": 1.5}, sessionData), code: msl.ErrMasterTokenTokenDataParseError},
		{name: "expiration a string", token: build(object{"expiration": "1"}, sessionData), code: msl.ErrMasterTokenTokenDataParseError},
		{name: "no sessiondata", token: issuerKeys.token(masterMembers, "", nil), code: msl.ErrMasterTokenTokenDataParseError},
		{name: "expires before renewal", token: build(object{"expiration": 1700003599}, sessionData), code: msl.ErrMasterTokenExpiresBeforeRenewal},
		{name: "expires with renewal", token: build(object{"expiration": 1700003600}, sessionData), accepted: true},
		{name: "sequence number negative", token: build(object{"sequencenumber": -1}, sessionData), code: msl.ErrMasterTokenSequenceNumberOutOfRange},
		{name: "sequence number too big", token: build(object{"sequencenumber": tooBig}, sessionData), code: msl.ErrMasterTokenSequenceNumberOutOfRange},
		{name: "sequence number greatest", token: build(object{"sequencenumber": tooBig - 1}, sessionData), accepted: true},
		{name: "serial number negative", token: build(object{"serialnumber": -1}, sessionData), code: msl.ErrMasterTokenSerialNumberOutOfRange},
		{name: "serial number too big", token: build(object{"serialnumber": tooBig}, sessionData), code: msl.ErrMasterTokenSerialNumberOutOfRange},
		{name: "order of range checks", token: build(object{"serialnumber": -1, "sequencenumber": -1, "expiration": 1}, sessionData), code: msl.ErrMasterTokenExpiresBeforeRenewal},
		{name: "empty sessiondata", token: issuerKeys.token(with(masterMembers, object{"sessiondata": ""}), "", nil), code: msl.ErrMasterTokenSessionDataMissing},
		{name: "sessiondata no envelope", token: issuerKeys.token(with(masterMembers, object{"sessiondata": []byte("{}")}), "", nil), code: msl.ErrCiphertextEnvelopeParseError},
		{name: "sessiondata no object", token: issuerKeys.token(masterMembers, "sessiondata", []byte("x")), code: msl.ErrMasterTokenSessionDataParseError},
		{name: "no identity", token: inner(object{"identity": nil}), code: msl.ErrMasterTokenSessionDataParseError},
		{name: "no encryption key", token: inner(object{"encryptionkey": nil}), code: msl.ErrMasterTokenSessionDataParseError},
		{name: "no signature key at all", token: inner(object{"signaturekey": nil, "hmackey": nil}), code: msl.ErrMasterTokenSessionDataParseError},
		{name: "old name of the signature key", token: inner(object{"signaturekey": nil}), accepted: true},
		{name: "new name of the signature key", token: inner(object{"hmackey": nil}), accepted: true},
		{name: "no algorithms", token: inner(object{"encryptionalgorithm": nil, "signaturealgorithm": nil}), accepted: true},
		{name: "issuer data no object", token: inner(object{"issuerdata": 1}), code: msl.ErrMasterTokenSessionDataParseError},
		{name: "unknown encryption algorithm", token: inner(object{"encryptionalgorithm": "aes"}), code: msl.ErrUnidentifiedAlgorithm},
		{name: "unknown signature algorithm", token: inner(object{"signaturealgorithm": "x"}), code: msl.ErrUnidentifiedAlgorithm},
		{name: "empty encryption key", token: inner(object{"encryptionkey": ""}), code: msl.ErrMasterTokenKeyCreationError},
		{name: "encryption key too long", token: inner(object{"encryptionkey": make17()}), code: msl.ErrMasterTokenKeyCreationError},
		{name: "encryption key of AES-192", token: inner(object{"encryptionkey": make([]byte, 24)}), code: msl.ErrMasterTokenKeyCreationError},
		{name: "short signature key", token: inner(object{"signaturekey": []byte{1}}), code: msl.ErrMasterTokenKeyCreationError},
		{name: "changed signature", token: with(valid, object{"signature": sessionRaw.sign([]byte("x"))}), code: msl.ErrMasterTokenUntrusted},
		{name: "empty signature", token: with(valid, object{"signature": ""}), code: msl.ErrMasterTokenUntrusted},
		{name: "signed by another issuer", token: serviceKeys.token(masterMembers, "sessiondata", sessionData), code: msl.ErrMasterTokenUntrusted},
		{name: "not ours and of garbage", token: serviceKeys.token(masterMembers, "sessiondata", []byte("x")), code: msl.ErrMasterTokenUntrusted},
	}...)
}

func make17() []byte { return append([]byte{0}, sessionRaw.encryption...) }

func TestMasterTokenErrors(t *testing.T) {
	issuer := newIssuer(t, true)
	for _, c := range masterCases() {
		token, err := msl.ParseMasterToken(encode(c.token))
		if err == nil {
			var s *msl.Session
			if s, err = issuer.Open(token); err == nil {
				s.Release()
			}
		}
		c.check(t, err)
	}
	if n, _ := issuer.Store.(interface{ Live() (int, int) }).Live(); n != 0 {
		t.Errorf("%d keys were not closed", n)
	}
}

func userCases() []tokenCase {
	build := func(members, data object) object {
		return issuerKeys.token(with(userMembers, members), "userdata", data)
	}
	valid := build(nil, userData)
	return append(outerCases(valid, msl.ErrUserIDTokenTokenDataMissing, msl.ErrUserIDTokenTokenDataParseError), []tokenCase{
		{name: "no mtserialnumber", token: build(object{"mtserialnumber": nil}, userData), code: msl.ErrUserIDTokenTokenDataParseError},
		{name: "expires before renewal", token: build(object{"expiration": 1}, userData), code: msl.ErrUserIDTokenExpiresBeforeRenewal},
		{name: "mtserialnumber negative", token: build(object{"mtserialnumber": -1}, userData), code: msl.ErrUserIDTokenMasterTokenSerialNumberOutOfRange},
		{name: "mtserialnumber too big", token: build(object{"mtserialnumber": tooBig}, userData), code: msl.ErrUserIDTokenMasterTokenSerialNumberOutOfRange},
		{name: "serial number negative", token: build(object{"serialnumber": -1}, userData), code: msl.ErrUserIDTokenSerialNumberOutOfRange},
		{name: "serial number too big", token: build(object{"serialnumber": tooBig}, userData), code: msl.ErrUserIDTokenSerialNumberOutOfRange},
		{name: "no userdata", token: issuerKeys.token(userMembers, "", nil), code: msl.ErrUserIDTokenTokenDataParseError},
		{name: "empty userdata", token: issuerKeys.token(with(userMembers, object{"userdata": ""}), "", nil), code: msl.ErrUserIDTokenUserDataMissing},
		{name: "userdata no object", token: issuerKeys.token(userMembers, "userdata", []byte("x")), code: msl.ErrUserIDTokenUserDataParseError},
		{name: "no identity", token: build(nil, object{"x": 1}), code: msl.ErrUserIDTokenUserDataParseError},
		{name: "empty identity", token: build(nil, object{"identity": ""}), code: msl.ErrUserIDTokenIdentityInvalid},
		{name: "issuer data no object", token: build(nil, with(userData, object{"issuerdata": "x"})), code: msl.ErrUserIDTokenUserDataParseError},
		{name: "signed by another issuer", token: serviceKeys.token(userMembers, "userdata", userData), code: msl.ErrUserIDTokenNotDecrypted},
	}...)
}

func TestUserIDTokenErrors(t *testing.T) {
	issuer := newIssuer(t, false)
	for _, c := range userCases() {
		token, err := msl.ParseUserIDToken(encode(c.token))
		if err == nil {
			_, err = issuer.OpenUser(token)
		}
		c.check(t, err)
	}
}

func serviceCases() []tokenCase {
	members := object{"name": "st", "encrypted": false, "servicedata": []byte("data")}
	build := func(changes object) object { return serviceKeys.signed("tokendata", encode(with(members, changes))) }
	cases := outerCases(build(nil), msl.ErrServiceTokenTokenDataMissing, msl.ErrMSLParseError)
	return append(cases, []tokenCase{
		{name: "no name", token: build(object{"name": nil}), code: msl.ErrMSLParseError},
		{name: "no encrypted", token: build(object{"encrypted": nil}), code: msl.ErrMSLParseError},
		{name: "encrypted a string", token: build(object{"encrypted": "true"}), code: msl.ErrMSLParseError},
		{name: "no servicedata", token: build(object{"servicedata": nil}), code: msl.ErrMSLParseError},
		{name: "mtserialnumber -1", token: build(object{"mtserialnumber": -1}), code: msl.ErrServiceTokenMasterTokenSerialNumberOutOfRange},
		{name: "mtserialnumber too big", token: build(object{"mtserialnumber": tooBig}), code: msl.ErrServiceTokenMasterTokenSerialNumberOutOfRange},
		{name: "uitserialnumber -1", token: build(object{"uitserialnumber": -1}), code: msl.ErrServiceTokenUserIDTokenSerialNumberOutOfRange},
		{name: "uitserialnumber too big", token: build(object{"uitserialnumber": tooBig}), code: msl.ErrServiceTokenUserIDTokenSerialNumberOutOfRange},
		{name: "compression without a name", token: build(object{"compressionalgo": ""}), code: msl.ErrUnidentifiedCompression},
		{name: "unknown compression", token: build(object{"compressionalgo": "gzip"}), code: msl.ErrUnidentifiedCompression},
		{name: "damaged compression", token: build(object{"compressionalgo": "GZIP"}), code: msl.ErrUncompressionError},
		{name: "compression bomb", token: build(object{"compressionalgo": "GZIP", "servicedata": zeros(1 << 20)}), code: msl.ErrUncompressionError},
		{name: "nothing, compressed", token: build(object{"compressionalgo": "GZIP", "servicedata": "", "encrypted": true}), accepted: true},
		{name: "encrypted, but no envelope", token: build(object{"encrypted": true}), code: msl.ErrCiphertextEnvelopeParseError},
		{name: "of a master token that is not there", token: build(object{"mtserialnumber": 9}), code: msl.ErrServiceTokenMasterTokenMismatch},
		{name: "of a user that is not there", token: build(object{"uitserialnumber": 9}), code: msl.ErrServiceTokenUserIDTokenMismatch},
		{name: "of both", token: build(object{"mtserialnumber": 7, "uitserialnumber": 8}), accepted: true},
		{name: "not ours, and unread", token: issuerKeys.signed("tokendata", encode(with(members, object{"compressionalgo": "GZIP", "encrypted": true}))), accepted: true},
	}...)
}

func TestServiceTokenErrors(t *testing.T) {
	mt, err := msl.ParseMasterToken(encode(issuerKeys.token(masterMembers, "sessiondata", sessionData)))
	uit, err2 := msl.ParseUserIDToken(encode(issuerKeys.token(userMembers, "userdata", userData)))
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	keys := msl.ServiceTokenKeys{"st": symmetric(t, newStore(t), serviceKeys)}
	for _, c := range serviceCases() {
		token, err := msl.ParseServiceToken(encode(c.token), keys, mt, uit)
		c.check(t, err)
		if c.name == "not ours, and unread" && (token.Opened || token.Data != nil) {
			t.Errorf("%s: %+v", c.name, token)
		}
	}
	// A user ID token binds a service token to its own master token.
	stray := *uit
	stray.MasterToken = 6
	both := serviceKeys.signed("tokendata", []byte(`{"name":"st","mtserialnumber":7,"uitserialnumber":8,"encrypted":false,"servicedata":""}`))
	if _, err := msl.ParseServiceToken(encode(both), keys, mt, &stray); !errors.Is(err, msl.ErrServiceTokenMasterTokenMismatch) {
		t.Errorf("user of another master token: %v", err)
	}
}
