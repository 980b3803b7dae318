package msl_test

import (
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"testing"
)

// A rawKeys protects and opens messages with only the standard library, so that the
// package's output is checked by other code than its own.
type rawKeys struct {
	id         string
	encryption []byte
	mac        []byte
}

type object = map[string]any

// encode writes v, or v itself where it is bytes already.
func encode(v any) []byte {
	if b, ok := v.([]byte); ok {
		return b
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func (k rawKeys) encrypt(plaintext []byte) []byte {
	if k.encryption == nil {
		return plaintext
	}
	block, err := aes.NewCipher(k.encryption)
	if err != nil {
		panic(err)
	}
	iv := make([]byte, 16)
	rand.Read(iv)
	pad := 16 - len(plaintext)%16
	padded := append(append([]byte{}, plaintext...), bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(padded, padded)
	return encode(object{"keyid": k.id, "iv": iv, "ciphertext": padded, "sha256": []byte{0}})
}

func (k rawKeys) decrypt(envelope []byte) ([]byte, error) {
	var e struct {
		KeyID          *string
		IV, Ciphertext []byte
		SHA256         *string
	}
	if err := json.Unmarshal(envelope, &e); err != nil {
		return nil, err
	}
	if e.KeyID == nil || e.SHA256 == nil || *e.SHA256 != "AA==" || len(e.IV) != 16 || len(e.Ciphertext)%16 != 0 || len(e.Ciphertext) == 0 {
		return nil, fmt.Errorf("not an envelope: %s", envelope)
	}
	block, err := aes.NewCipher(k.encryption)
	if err != nil {
		return nil, err
	}
	out := make([]byte, len(e.Ciphertext))
	cipher.NewCBCDecrypter(block, e.IV).CryptBlocks(out, e.Ciphertext)
	pad := int(out[len(out)-1])
	if pad < 1 || pad > 16 {
		return nil, errors.New("bad padding")
	}
	return out[:len(out)-pad], nil
}

func (k rawKeys) sign(data []byte) []byte {
	if k.mac == nil {
		return []byte{}
	}
	h := hmac.New(sha256.New, k.mac)
	h.Write(data)
	return h.Sum(nil)
}

func (k rawKeys) verify(data, signature []byte) error {
	if !hmac.Equal(k.sign(data), signature) {
		return errors.New("signature does not match")
	}
	return nil
}

// signed is an object of data under dataName and its signature.
func (k rawKeys) signed(dataName string, data []byte) object {
	return object{dataName: data, "signature": k.sign(data)}
}

// token makes a master token or user ID token of members, whose inner part of
// the given name is encrypted.
func (k rawKeys) token(members object, innerName string, inner any) object {
	all := object{}
	maps.Copy(all, members)
	if inner != nil {
		all[innerName] = k.encrypt(encode(inner))
	}
	return k.signed("tokendata", encode(all))
}

// message protects a header and chunks. who is the mastertoken or entityauthdata.
func (k rawKeys) message(who object, header any, chunks ...any) []byte {
	outer := k.signed("headerdata", k.encrypt(encode(header)))
	maps.Copy(outer, who)
	out := encode(outer)
	for _, c := range chunks {
		out = append(out, encode(k.signed("payload", k.encrypt(encode(c))))...)
	}
	return out
}

// one is a header without anything special, and the whole payload of it.
func one(members ...object) object {
	h := object{"messageid": 1, "renewable": false}
	for _, m := range members {
		maps.Copy(h, m)
	}
	return h
}

var hello = object{"sequencenumber": 1, "messageid": 1, "endofmsg": true, "data": []byte("hello")}

// An answer is a message of the server, opened.
type answer struct {
	outer  wireHeader
	header answerHeader
	err    *answerError
	chunks []answerChunk
}

type wireHeader struct {
	MasterToken    json.RawMessage
	EntityAuthData json.RawMessage
	HeaderData     []byte
	ErrorData      []byte
	Signature      *[]byte
}

type answerHeader struct {
	MessageID       *int64
	Timestamp       *int64
	NonReplayable   *bool
	NonReplayableID *int64
	Renewable       *bool
	Handshake       *bool
	Sender          string
	Recipient       string
	Capabilities    json.RawMessage
	KeyResponseData *struct {
		MasterToken json.RawMessage
		Scheme      string
		KeyData     struct {
			KeyID, KeyPairID       string
			EncryptionKey, HMACKey []byte
		}
	}
	UserIDToken   json.RawMessage
	ServiceTokens []json.RawMessage
}

type answerError struct {
	Timestamp, MessageID    *int64
	ErrorCode, InternalCode int
	ErrorMsg                string
}

type answerChunk struct {
	SequenceNumber, MessageID int64
	EndOfMsg                  bool
	CompressionAlgo           string
	Data                      []byte
}

// serverPublic verifies what the server signs with its RSA key.
type serverPublic struct{ key *rsa.PublicKey }

func (s serverPublic) verify(data, signature []byte) error {
	digest := sha256.Sum256(data)
	return rsa.VerifyPKCS1v15(s.key, crypto.SHA256, digest[:], signature)
}

// readAnswer opens an answer to a sender who has session keys (nil without a
// master token). payload finds the keys of the payload from the header.
func readAnswer(raw []byte, server serverPublic, session *rawKeys, payload func(answerHeader) (*rawKeys, error)) (a answer, err error) {
	stream := json.NewDecoder(bytes.NewReader(raw))
	if err := stream.Decode(&a.outer); err != nil {
		return a, err
	}
	if a.outer.Signature == nil {
		return a, errors.New("no signature")
	}
	if a.outer.ErrorData != nil {
		a.err = &answerError{}
		return a, errors.Join(server.verify(a.outer.ErrorData, *a.outer.Signature), json.Unmarshal(a.outer.ErrorData, a.err))
	}
	inside := a.outer.HeaderData
	if a.outer.MasterToken != nil {
		if err := session.verify(a.outer.HeaderData, *a.outer.Signature); err != nil {
			return a, err
		}
		if inside, err = session.decrypt(a.outer.HeaderData); err != nil {
			return a, err
		}
	} else if err := server.verify(a.outer.HeaderData, *a.outer.Signature); err != nil {
		return a, err
	}
	if err := json.Unmarshal(inside, &a.header); err != nil {
		return a, err
	}
	keys, err := payload(a.header)
	if err != nil {
		return a, err
	}
	return a, a.readChunks(stream, keys, server)
}

func (a *answer) readChunks(stream *json.Decoder, keys *rawKeys, server serverPublic) error {
	for {
		var c struct{ Payload, Signature []byte }
		if err := stream.Decode(&c); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		inside, err := c.Payload, error(nil)
		if keys == nil {
			err = server.verify(c.Payload, c.Signature)
		} else if err = keys.verify(c.Payload, c.Signature); err == nil {
			inside, err = keys.decrypt(c.Payload)
		}
		if err != nil {
			return err
		}
		var chunk answerChunk
		if err := json.Unmarshal(inside, &chunk); err != nil {
			return err
		}
		if chunk.SequenceNumber != int64(len(a.chunks)+1) || chunk.MessageID != *a.header.MessageID {
			return fmt.Errorf("chunk %d of message %d out of place", chunk.SequenceNumber, chunk.MessageID)
		}
		a.chunks = append(a.chunks, chunk)
	}
}

// zeros is a GZIP member of n zero bytes.
func zeros(n int) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(make([]byte, n))
	w.Close()
	return b.Bytes()
}

// inflate is the data of a chunk.
func inflate(t testing.TB, c answerChunk) []byte {
	t.Helper()
	if c.CompressionAlgo == "" {
		return c.Data
	}
	if c.CompressionAlgo != "GZIP" {
		t.Fatalf("compressed with %s, while GZIP is preferred", c.CompressionAlgo)
	}
	z, err := gzip.NewReader(bytes.NewReader(c.Data))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
