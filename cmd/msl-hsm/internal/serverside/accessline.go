package serverside

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/safetext"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// accessLine appends the fields of a message's line.
func accessLine(line []slog.Attr, v *msl.Served) []slog.Attr {
	line = append(line, slog.String("source", v.Source), slog.String("entity", safetext.First(v.Identity, longestText)), slog.Bool("authenticated", v.Authenticated))
	line = appendText(line, "user", v.User)
	line = appendText(line, "scheme", v.Scheme)
	line = appendText(line, "key_exchange", v.KeyExchange)
	line = append(line, slog.Int64("message_id", v.MessageID), slog.Int64("read", v.Read), slog.Int64("written", v.Written), slog.Duration("took", v.Took))
	if call := upstreamOf(v.Message); call != nil {
		line = append(line, slog.String("upstream", call.Target), slog.Int("upstream_status", call.Status), slog.Duration("upstream_took", call.Took))
	}
	if v.Response != 0 {
		line = append(line, slog.String("response", v.Response.String()), slog.Int("code", int(v.Code)))
	}
	if v.Err != nil {
		line = append(line, slog.String("fault", v.Fault.String()), slog.String("error", safetext.First(v.Err.Error(), longestText)))
	}
	return line
}

func appendText(line []slog.Attr, name, text string) []slog.Attr {
	if text == "" {
		return line
	}
	return append(line, slog.String(name, safetext.First(text, longestText)))
}

// longestText is how many bytes of a text a line has: a stranger may claim an identity as
// long as a header, and must not fill the disk with it.
const longestText = 1024

// noteUpstream keeps the last request to the service for the line of its message.
func noteUpstream(m *msl.Message, c mslhttp.UpstreamCall) { m.Note = &c }

func upstreamOf(m *msl.Message) *mslhttp.UpstreamCall {
	if m == nil {
		return nil
	}
	call, _ := m.Note.(*mslhttp.UpstreamCall)
	return call
}

// appendLine appends a line of JSON as a [slog.JSONHandler] writes it, for a third of the
// processor time: there is one for each message.
func appendLine(b []byte, at time.Time, fields []slog.Attr) []byte {
	b = append(b, `{"time":"`...)
	b = at.AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","level":"INFO","msg":"message"`...)
	for _, f := range fields {
		b = append(append(append(b, ',', '"'), f.Key...), '"', ':')
		switch v := f.Value; v.Kind() {
		case slog.KindBool:
			b = strconv.AppendBool(b, v.Bool())
		case slog.KindInt64:
			b = strconv.AppendInt(b, v.Int64(), 10)
		case slog.KindDuration:
			b = strconv.AppendInt(b, int64(v.Duration()), 10)
		default:
			b = appendQuoted(b, v.String())
		}
	}
	return append(b, '}', '\n')
}

// appendQuoted appends a string of JSON that people may read on a terminal.
func appendQuoted(b []byte, text string) []byte {
	if !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		return append(append(append(b, '"'), text...), '"')
	}
	var quoted bytes.Buffer
	e := json.NewEncoder(&quoted)
	e.SetEscapeHTML(false)
	_ = e.Encode(text) // a string has no error
	return append(b, safetext.String(strings.TrimSuffix(quoted.String(), "\n"))...)
}
