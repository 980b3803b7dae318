package msl_test

import (
	"context"
	"slices"

	"github.com/msl-hsm/msl-hsm/msl"
)

// The faults of the parts of messages, in the order in which the protocol finds them.

// masterFaults are those of a master token, in the order of its checks.
func masterFaults(name string) []fault {
	data := name + " data"
	return []fault{
		wrong(msl.ErrMSLParseError, name, object{"tokendata": nil}),
		wrong(msl.ErrMasterTokenTokenDataMissing, name, object{"tokendata": ""}),
		wrong(msl.ErrMSLParseError, name, object{"signature": nil}),
		wrong(msl.ErrMasterTokenTokenDataParseError, data, object{"sessiondata": 1}),
		wrong(msl.ErrMasterTokenExpiresBeforeRenewal, data, object{"expiration": 1}),
		wrong(msl.ErrMasterTokenSequenceNumberOutOfRange, data, object{"sequencenumber": tooBig}),
		wrong(msl.ErrMasterTokenSerialNumberOutOfRange, data, object{"serialnumber": -1}),
		wrong(msl.ErrMasterTokenSessionDataMissing, data, object{"sessiondata": ""}),
	}
}

// userFaults are those of the form of a user ID token.
func userFaults(name string) []fault {
	data := name + " data"
	return []fault{
		wrong(msl.ErrMSLParseError, "header", object{name: 1}),
		wrong(msl.ErrMSLParseError, name, object{"tokendata": nil}),
		wrong(msl.ErrUserIDTokenTokenDataMissing, name, object{"tokendata": ""}),
		wrong(msl.ErrMSLParseError, name, object{"signature": nil}),
		wrong(msl.ErrUserIDTokenTokenDataParseError, data, object{"userdata": 1}),
		wrong(msl.ErrUserIDTokenExpiresBeforeRenewal, data, object{"expiration": 1}),
		wrong(msl.ErrUserIDTokenMasterTokenSerialNumberOutOfRange, data, object{"mtserialnumber": -1}),
		wrong(msl.ErrUserIDTokenSerialNumberOutOfRange, data, object{"serialnumber": tooBig}),
		wrong(msl.ErrUserIDTokenUserDataMissing, data, object{"userdata": ""}),
	}
}

// serviceFaults are those of a service token, whose keys are at hand.
func serviceFaults(name string) []fault {
	data := name + " data"
	return []fault{
		wrong(msl.ErrMSLParseError, "header", object{name: 1}),
		wrong(msl.ErrMSLParseError, name, object{"tokendata": nil}),
		wrong(msl.ErrServiceTokenTokenDataMissing, name, object{"tokendata": ""}),
		wrong(msl.ErrMSLParseError, data, object{"name": nil}),
		wrong(msl.ErrMSLParseError, name, object{"signature": nil}),
		wrong(msl.ErrServiceTokenMasterTokenSerialNumberOutOfRange, data, object{"mtserialnumber": -1}),
		wrong(msl.ErrServiceTokenUserIDTokenSerialNumberOutOfRange, data, object{"uitserialnumber": tooBig}),
		wrong(msl.ErrUnidentifiedCompression, data, object{"compressionalgo": "X", "servicedata": []byte("x")}),
		wrong(msl.ErrCiphertextEnvelopeParseError, data, object{"encrypted": true, "servicedata": []byte("x")}),
		wrong(msl.ErrUncompressionError, data, object{"compressionalgo": "GZIP", "servicedata": []byte("x")}),
		wrong(msl.ErrServiceTokenMasterTokenMismatch, data, object{"mtserialnumber": 6}),
		wrong(msl.ErrServiceTokenUserIDTokenMismatch, data, object{"uitserialnumber": 9}),
	}
}

// insideFaults are those of the inside of a header, up to its key requests, with those of a user
// that is to be authenticated.
func insideFaults(user ...fault) []fault {
	return slices.Concat([]fault{
		wrong(msl.ErrMSLParseError, "header", object{"messageid": "1"}),
		wrong(msl.ErrMessageIDOutOfRange, "header", object{"messageid": tooBig}),
		wrong(msl.ErrMSLParseError, "header", object{"timestamp": "1"}),
		wrong(msl.ErrMSLParseError, "header", object{"keyresponsedata": 1}),
		wrong(msl.ErrMSLParseError, "keyresponsedata", object{"mastertoken": 1}),
	}, needing("keyresponsedata", masterFaults("delivered")), []fault{
		wrong(msl.ErrUnidentifiedKeyXScheme, "keyresponsedata", object{"scheme": "X"}),
		wrong(msl.ErrKeyXFactoryNotFound, "keyresponsedata", object{"scheme": "JWE_LADDER"}),
		wrong(msl.ErrMSLParseError, "keyresponsedata", object{"keydata": 1}),
	}, userFaults("useridtoken"), user, serviceFaults("servicetokens"), []fault{
		wrong(msl.ErrMSLParseError, "header", object{"nonreplayableid": "1"}),
		wrong(msl.ErrNonReplayableIDOutOfRange, "header", object{"nonreplayableid": -1}),
		wrong(msl.ErrMSLParseError, "header", object{"renewable": nil}),
		wrong(msl.ErrMSLParseError, "header", object{"handshake": 1}),
		wrong(msl.ErrMSLParseError, "header", object{"capabilities": 1}),
		wrong(msl.ErrMSLParseError, "header", object{"capabilities": object{"languages": []int{1}}}),
		wrong(msl.ErrMSLParseError, "header", object{"keyrequestdata": 1}),
	})
}

// needing are faults of a part of another part.
func needing(part string, faults []fault) []fault {
	for i, f := range faults {
		faults[i] = f.and(part, object{})
	}
	return faults
}

// openedFaults are those of a user ID token that only its issuer finds. The binding is judged
// after them.
func openedFaults() []fault {
	return []fault{
		wrong(msl.ErrUserIDTokenNotDecrypted, "keys", object{"useridtoken": 1}),
		wrong(msl.ErrUserIDTokenUserDataParseError, "useridtoken inside", object{"identity": 1}),
		wrong(msl.ErrUserIDTokenIdentityInvalid, "useridtoken inside", object{"identity": ""}),
		wrong(msl.ErrUserIDTokenMasterTokenMismatch, "useridtoken data", object{"mtserialnumber": 6}),
	}
}

// loginFaults are those of the form of user authentication data.
func loginFaults() []fault {
	return []fault{
		wrong(msl.ErrMSLParseError, "header", object{"userauthdata": 1}),
		wrong(msl.ErrUnidentifiedUserAuthScheme, "header", object{"userauthdata": object{"scheme": "X", "authdata": object{}}}),
		wrong(msl.ErrUserAuthFactoryNotFound, "header", object{"userauthdata": object{"scheme": "USER_ID_TOKEN", "authdata": object{}}}),
		wrong(msl.ErrMSLParseError, "header", object{"userauthdata": object{"scheme": "EMAIL_PASSWORD"}}),
		wrong(msl.ErrMSLParseError, "password", object{"email": 1}),
	}
}

// lastFaults are those of a user, who is authenticated after everything else, so that a
// message without a right to it learns nothing about a password.
func lastFaults() []fault {
	return needing("password", []fault{
		stateFault(msl.ErrUserAuthEntityIncorrectData, "schemes of users", func(r *recorded) func() {
			r.directory["client1"].UserSchemes = []string{}
			return func() { r.directory["client1"].UserSchemes = nil }
		}),
		wrong(msl.ErrEmailPasswordBlank, "password", object{"email": " "}),
		wrong(msl.ErrEmailPasswordIncorrect, "password", object{"password": "x"}),
		stateFault(msl.ErrUserAuthEntityUserIncorrectData, "schemes of one user", func(r *recorded) func() {
			r.server.PermitUser = func(_ context.Context, _, user, _ string) (bool, error) { return user == "", nil }
			return func() { r.server.PermitUser = nil }
		}),
	})
}

func keyFaults() []fault {
	return []fault{
		wrong(msl.ErrMSLParseError, "header", object{"keyrequestdata": []any{1}}),
		wrong(msl.ErrUnidentifiedKeyXScheme, "header", object{"keyrequestdata": []any{keyRequest("X", object{})}}),
		wrong(msl.ErrKeyXFactoryNotFound, "header", object{"keyrequestdata": []any{keyRequest("JWE_LADDER", object{})}}),
		wrong(msl.ErrUnidentifiedKeyXKeyID, "header", object{"keyrequestdata": []any{keyRequest("SYMMETRIC_WRAPPED", object{"keyid": "X"})}}),
	}
}

var (
	otherUser    = wrong(msl.ErrUserIDTokenUserAuthDataMismatch, "useridtoken inside", object{"identity": "user2@foo.com"}).and("password", object{})
	unasked      = wrong(msl.ErrKeyXResponseRequestMismatch, "keyresponsedata", object{})
	handshakes   = []fault{wrong(msl.ErrHandshakeDataMissing, "header", object{"handshake": true, "renewable": false}), wrong(msl.ErrHandshakeDataMissing, "header", object{"handshake": true, "renewable": true, "keyrequestdata": []any{}})}
	withoutToken = wrong(msl.ErrIncompleteNonReplayableMessage, "header", object{"nonreplayableid": 1})
	answerFaults = []fault{wrong(msl.ErrUnexpectedResponseMessageID, "header", object{"messageid": 3}), wrong(msl.ErrMessageSenderMismatch, "from another", object{})}
)

// tokenFaults are those of a message under a master token, once its header was read.
func tokenFaults() []fault {
	past := func(code msl.Code, header object) fault {
		return wrong(code, "mastertoken data", expired).and("header", header)
	}
	return []fault{
		revoking(msl.ErrMasterTokenIdentityRevoked, "client1"),
		revoking(msl.ErrUserIDTokenRevoked, "user1@foo.com").and("useridtoken", object{}),
		past(msl.ErrMessageExpiredNotRenewable, object{"renewable": false}),
		past(msl.ErrMessageExpiredNoKeyRequestData, object{"renewable": true, "keyrequestdata": []any{}}),
		past(msl.ErrMasterTokenSequenceNumberOutOfSync, requests(pskRequest)),
		wrong(msl.ErrMessageReplayed, "header", object{"nonreplayableid": 0}),
		wrong(msl.ErrMessageReplayedUnrecoverable, "header", object{"nonreplayableid": 1 << 20}),
	}
}

// openingFaults are those of a header that are found before its inside is read.
func openingFaults(signature msl.Code) []fault {
	return []fault{
		wrong(msl.ErrHeaderDataMissing, "outer", object{"headerdata": ""}),
		wrong(signature, "keys", object{"header": 1}),
		wrong(msl.ErrCiphertextEnvelopeParseError, "envelope", object{}),
		wrong(msl.ErrMSLParseError, "plain", object{}),
	}
}

var outerFaults = []fault{
	wrong(msl.ErrMSLParseError, "outer", object{"signature": nil}),
	wrong(msl.ErrMSLParseError, "outer", object{"headerdata": nil}),
}

// entityFaults are those of entity authentication data and of the entity, and between them those
// of the rest of the outer part.
func entityFaults() []fault {
	entity := func(code msl.Code, value any) fault { return wrong(code, "outer", object{"entityauthdata": value}) }
	by := func(code msl.Code, scheme string, authdata any) fault {
		return entity(code, object{"scheme": scheme, "authdata": authdata})
	}
	return slices.Concat([]fault{
		entity(msl.ErrMSLParseError, 1),
		entity(msl.ErrMSLParseError, object{"authdata": object{}}),
		by(msl.ErrUnidentifiedEntityAuthScheme, "X", object{}),
		by(msl.ErrEntityAuthFactoryNotFound, "ECC", object{}),
		by(msl.ErrMSLParseError, "PSK", 1),
		by(msl.ErrMSLParseError, "PSK", object{"identity": 1}),
		by(msl.ErrMSLParseError, "X509", object{}),
	}, outerFaults, []fault{
		entity(msl.ErrMessageEntityNotFound, nil),
		by(msl.ErrIncorrectEntityAuthData, "PSK", object{"identity": "client3"}),
		by(msl.ErrEntityNotFound, "PSK", object{"identity": "nobody"}),
		stateFault(msl.ErrEntityRevoked, "entity revoked", func(r *recorded) func() {
			r.directory["client1"].Revoked = true
			return func() { r.directory["client1"].Revoked = false }
		}),
	})
}
