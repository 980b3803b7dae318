package auditlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Events that the log writes itself.
const (
	eventFile       = "file"
	eventMark       = "mark"
	eventCheckpoint = "checkpoint"
	eventLost       = "lost"
)

// Events that [Verify] interprets. There may be others.
const (
	EventStart = "start" // of a process that writes the log
	EventStop  = "stop"  // of it, in good order: nothing may follow but a checkpoint or a start
)

// A Record is something that happened. Empty fields are left out. Secrets and the data of
// messages do not belong in one.
type Record struct {
	Event         string `json:"event"`                   // kind of the record
	Action        string `json:"action,omitempty"`        // what somebody wanted
	Subject       string `json:"subject,omitempty"`       // to whom or what it was done
	By            string `json:"by,omitempty"`            // who did it
	Source        string `json:"source,omitempty"`        // address that a message came from
	Entity        string `json:"entity,omitempty"`        // sender of a message
	Authenticated bool   `json:"authenticated,omitempty"` // Entity is proven
	User          string `json:"user,omitempty"`          // user of a message
	Scheme        string `json:"scheme,omitempty"`        // entity scheme
	KeyExchange   string `json:"key_exchange,omitempty"`  // that delivered session keys
	MessageID     *int64 `json:"message_id,omitempty"`    // of MSL
	KeyVersion    uint32 `json:"key_version,omitempty"`   // of the issuer key that the token of a message was made with
	Issued        uint32 `json:"issued,omitempty"`        // version of the issuer key of a token that was given out
	Key           string `json:"key,omitempty"`           // id of a key
	Result        string `json:"result,omitempty"`        // what became of it
	Code          int    `json:"code,omitempty"`          // MSL error
	Error         string `json:"error,omitempty"`         // why not
	Detail        string `json:"detail,omitempty"`        // more, for people
	Count         uint64 `json:"count,omitempty"`         // how many
}

// maxText bounds the bytes of one text in a record, and maxLine those of a line.
const (
	maxText = 1 << 10
	maxLine = 64 << 10
)

// bounded shortens the texts that others can make long.
func (r Record) bounded() Record {
	for _, text := range []*string{&r.Event, &r.Action, &r.Subject, &r.By, &r.Source, &r.Entity, &r.User, &r.Scheme, &r.KeyExchange, &r.Key, &r.Result, &r.Error, &r.Detail} {
		if len(*text) > maxText {
			cut := maxText
			for cut > maxText-utf8.UTFMax && !utf8.RuneStart((*text)[cut]) {
				cut--
			}
			*text = strings.ToValidUTF8((*text)[:cut], "\uFFFD") + "…"
		}
	}
	return r
}

// A Position is a line of a log, with its chain value, by which it is recognized later.
type Position struct {
	N     uint64
	Chain [sha256.Size]byte
}

// String returns the number and the chain value, in the form that [ParsePosition] reads.
func (p Position) String() string { return strconv.FormatUint(p.N, 10) + ":" + chainText(p.Chain) }

// ParsePosition reads what [Position.String] returned.
func ParsePosition(text string) (p Position, err error) {
	number, chain, _ := strings.Cut(text, ":")
	n, errN := strconv.ParseUint(number, 10, 64)
	sum, errC := parseChain(chain)
	if errN != nil || errC != nil {
		return p, fmt.Errorf("%q is not the number and the chain value of a record, such as 812:%s", text, chainText(p.Chain))
	}
	return Position{n, sum}, nil
}

// A line is the part of a line that belongs to the log itself.
type line struct {
	N    uint64    `json:"n"`
	Time time.Time `json:"time"`
	Record
	ownFields
}

// ownFields are those of the log's own events.
type ownFields struct {
	Log       string `json:"log,omitempty"`       // file: name of the log
	Previous  string `json:"previous,omitempty"`  // file: chain value before it
	Torn      int64  `json:"torn,omitempty"`      // file: bytes at the end of the file before that are not a line
	At        uint64 `json:"at,omitempty"`        // checkpoint: the mark that is signed
	Signature []byte `json:"signature,omitempty"` // checkpoint
}

const (
	chainField = `,"chain":"`
	chainEnd   = `"}`
)

// chainLength is the length of a chain value as text.
var chainLength = base64.RawURLEncoding.EncodedLen(sha256.Size)

func chainText(sum [sha256.Size]byte) string { return base64.RawURLEncoding.EncodeToString(sum[:]) }

func parseChain(text string) (sum [sha256.Size]byte, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != sha256.Size {
		return sum, errors.New("no chain value")
	}
	return [sha256.Size]byte(b), nil
}

// follow returns the chain value of the line after another one.
func follow(before [sha256.Size]byte, body []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write(before[:])
	h.Write(body)
	h.Sum(sum[:0])
	return sum
}

// write appends the text of a line that follows another one, and returns its chain value.
func (l line) write(to []byte, before [sha256.Size]byte) (text []byte, sum [sha256.Size]byte) {
	text = l.body(to)
	sum = follow(before, text[len(to):])
	text = base64.RawURLEncoding.AppendEncode(append(text, chainField...), sum[:])
	return append(text, chainEnd+"\n"...), sum
}

// A readLine is a line of a file. Its claims are not verified.
type readLine struct {
	line
	body  []byte // what the chain value covers
	chain [sha256.Size]byte
}

// errNoLine says that a text is not a line of a log.
var errNoLine = errors.New("it is not a record")

func parseLine(text []byte) (r readLine, err error) {
	cut := len(text) - len(chainField) - chainLength - len(chainEnd)
	if cut < 0 || !bytes.HasPrefix(text[cut:], []byte(chainField)) || !bytes.HasSuffix(text, []byte(chainEnd)) {
		return r, errNoLine
	}
	r.body = text[:cut]
	if r.chain, err = parseChain(string(text[cut+len(chainField) : len(text)-len(chainEnd)])); err != nil {
		return r, errNoLine
	}
	if err := json.Unmarshal(append(bytes.Clone(r.body), '}'), &r.line); err != nil || r.N == 0 || r.Event == "" {
		return r, errNoLine
	}
	return r, nil
}

// position is that of the line, as it claims.
func (r readLine) position() Position { return Position{r.N, r.chain} }

// own reports whether the log wrote the line for itself.
func (r readLine) own() bool {
	return r.Event == eventFile || r.Event == eventMark || r.Event == eventCheckpoint
}

// digest is what a checkpoint signs.
func digest(log string, mark Position, key string) []byte {
	h := sha256.New()
	h.Write([]byte("msl-hsm audit checkpoint 1\x00" + log + "\x00"))
	h.Write(binary.BigEndian.AppendUint64(nil, mark.N))
	h.Write(mark.Chain[:])
	h.Write([]byte(key))
	return h.Sum(nil)
}
