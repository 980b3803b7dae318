package msl_test

import (
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/msl"
)

// TestErrorHeaderFields reads error messages of which each field is odd. What can be read
// of one is not lost for what cannot.
func TestErrorHeaderFields(t *testing.T) {
	whole := object{"messageid": 5, "errorcode": 3, "internalcode": 101000, "errormsg": "x", "usermsg": "y", "timestamp": 7}
	read := msl.PeerError{Identity: "peer", MessageID: 5, Response: msl.EntityReauth, Code: msl.ErrMasterTokenUntrusted, InternalCode: 101000, Message: "x", User: "y"}
	as := func(change func(*msl.PeerError)) msl.PeerError { e := read; change(&e); return e }
	failed := as(func(e *msl.PeerError) { e.Response = msl.Fail })
	for name, c := range map[string]struct {
		changes object
		want    msl.PeerError
	}{
		"whole":                        {nil, read},
		"no timestamp":                 {object{"timestamp": nil}, read},
		"negative timestamp":           {object{"timestamp": -1}, read},
		"unknown member":               {object{"recipient": "z"}, read},
		"no internal code":             {object{"internalcode": nil}, as(func(e *msl.PeerError) { e.InternalCode, e.Code = -1, -1 })},
		"unknown internal code":        {object{"internalcode": 7}, as(func(e *msl.PeerError) { e.InternalCode, e.Code = 7, -1 })},
		"largest message id":           {object{"messageid": int64(1) << 53}, as(func(e *msl.PeerError) { e.MessageID = 1 << 53 })},
		"response code 0":              {object{"errorcode": 0}, failed},
		"response code 11":             {object{"errorcode": 11}, failed},
		"negative response code":       {object{"errorcode": -3}, failed},
		"response code of 32 bits and": {object{"errorcode": int64(1)<<32 + 3}, failed},
		"texts that are none":          {object{"errormsg": 1, "usermsg": []any{}}, as(func(e *msl.PeerError) { e.Message, e.User = "", "" })},
		"no texts":                     {object{"errormsg": nil, "usermsg": nil}, as(func(e *msl.PeerError) { e.Message, e.User = "", "" })},
	} {
		if got, err := msl.ReadError(encode(with(whole, c.changes))); err != nil || *got != c.want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for name, c := range map[string]struct {
		changes object
		want    msl.Code
		id      int64 // that the error tells
	}{
		"no message id":                           {object{"messageid": nil}, msl.ErrMSLParseError, -1},
		"message id a string":                     {object{"messageid": "5"}, msl.ErrMSLParseError, -1},
		"negative message id":                     {object{"messageid": -1}, msl.ErrMessageIDOutOfRange, -1},
		"message id too large":                    {object{"messageid": tooBig}, msl.ErrMessageIDOutOfRange, -1},
		"message id too large, no response code":  {object{"messageid": tooBig, "errorcode": nil}, msl.ErrMessageIDOutOfRange, -1},
		"message id too large, timestamp a bool":  {object{"messageid": tooBig, "timestamp": true}, msl.ErrMessageIDOutOfRange, -1},
		"timestamp a string":                      {object{"timestamp": "7"}, msl.ErrMSLParseError, 5},
		"no response code":                        {object{"errorcode": nil}, msl.ErrMSLParseError, 5},
		"response code a string":                  {object{"errorcode": "FAIL"}, msl.ErrMSLParseError, 5},
		"response code a fraction":                {object{"errorcode": 3.5}, msl.ErrMSLParseError, 5},
		"internal code a string":                  {object{"internalcode": "101000"}, msl.ErrMSLParseError, 5},
		"negative internal code":                  {object{"internalcode": -1}, msl.ErrInternalCodeNegative, 5},
		"negative internal code, no response one": {object{"internalcode": -1, "errorcode": nil}, msl.ErrMSLParseError, 5},
	} {
		_, err := msl.ReadError(encode(with(whole, c.changes)))
		var e *msl.Error
		if !errors.As(err, &e) || e.Code != c.want || e.MessageID != c.id {
			t.Errorf("%s: %v, want %v of message %d", name, err, c.want, c.id)
		}
	}
}
