package auditlog

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/safetext"
)

// An encoder writes the fields of a line in the form of [encoding/json], in a third of
// the time, since a server writes a line for each message. Characters that do not print are escaped,
// since people read logs on terminals.
type encoder []byte

// body appends what the chain value of a line covers.
func (l line) body(to []byte) []byte {
	e := encoder(append(to, `{"n":`...))
	e = strconv.AppendUint(e, l.N, 10)
	e = append(l.Time.AppendFormat(append(e, `,"time":"`...), time.RFC3339Nano), '"')
	r := &l.Record
	e.text("event", r.Event)
	e.text("action", r.Action)
	e.text("subject", r.Subject)
	e.text("by", r.By)
	e.text("source", r.Source)
	e.text("entity", r.Entity)
	if r.Authenticated {
		e.name("authenticated")
		e = append(e, "true"...)
	}
	e.text("user", r.User)
	e.text("scheme", r.Scheme)
	e.text("key_exchange", r.KeyExchange)
	if r.MessageID != nil {
		e.name("message_id")
		e = strconv.AppendInt(e, *r.MessageID, 10)
	}
	e.number("key_version", uint64(r.KeyVersion))
	e.number("issued", uint64(r.Issued))
	e.text("key", r.Key)
	e.text("result", r.Result)
	if r.Code != 0 {
		e.name("code")
		e = strconv.AppendInt(e, int64(r.Code), 10)
	}
	e.text("error", r.Error)
	e.text("detail", r.Detail)
	e.number("count", r.Count)
	return e.own(l.ownFields)
}

// own appends the fields of the log's own events.
func (e encoder) own(f ownFields) []byte {
	e.text("log", f.Log)
	e.text("previous", f.Previous)
	e.number("torn", uint64(f.Torn))
	e.number("at", f.At)
	if len(f.Signature) > 0 {
		e.name("signature")
		text, _ := json.Marshal(f.Signature) // bytes can always be encoded
		e = append(e, text...)
	}
	return e
}

func (e *encoder) name(name string) { *e = append(append(append(*e, `,"`...), name...), `":`...) }

func (e *encoder) number(name string, n uint64) {
	if n != 0 {
		e.name(name)
		*e = strconv.AppendUint(*e, n, 10)
	}
}

func (e *encoder) text(name, text string) {
	if text == "" {
		return
	}
	e.name(name)
	if plain(text) {
		*e = append(append(append(*e, '"'), text...), '"')
		return
	}
	quoted, _ := json.Marshal(text) // a string can always be encoded
	*e = append(*e, safetext.String(string(quoted))...)
}

// plain reports whether a text needs no escapes.
func plain(text string) bool {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}
