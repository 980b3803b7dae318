package tpmtest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"
)

// A Quirk stands between a program and its TPM. It answers one command, either itself or
// with the response that send gets from the TPM.
type Quirk func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error)

// Interpose returns a connection whose commands pass through a quirk.
func Interpose(conn io.ReadWriteCloser, quirk Quirk) io.ReadWriteCloser {
	return &interposed{conn: conn, quirk: quirk}
}

// Quirky is a Dial function whose connections pass through a quirk.
func (p *TPM) Quirky(quirk Quirk) func() (io.ReadWriteCloser, error) {
	return func() (io.ReadWriteCloser, error) {
		conn, err := p.Dial()
		if err != nil {
			return nil, err
		}
		return Interpose(conn, quirk), nil
	}
}

type interposed struct {
	conn    io.ReadWriteCloser
	quirk   Quirk
	answers bytes.Buffer
}

func (i *interposed) Write(command []byte) (int, error) {
	answer, err := i.quirk(command, func(b []byte) ([]byte, error) { return Exchange(i.conn, b) })
	if err != nil {
		return 0, err
	}
	i.answers.Write(answer)
	return len(command), nil
}

func (i *interposed) Read(b []byte) (int, error) { return i.answers.Read(b) }
func (i *interposed) Close() error               { return i.conn.Close() }

// Exchange sends a command and reads the whole response.
func Exchange(conn io.ReadWriter, command []byte) ([]byte, error) {
	if _, err := conn.Write(command); err != nil {
		return nil, err
	}
	return readMessage(conn)
}

// readMessage reads a command or a response.
func readMessage(conn io.Reader) ([]byte, error) {
	answer := make([]byte, 10)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(answer[2:])
	if size < 10 || size > 8192 {
		return nil, fmt.Errorf("tpmtest: message of %d bytes", size)
	}
	answer = append(answer, make([]byte, size-10)...)
	_, err := io.ReadFull(conn, answer[10:])
	return answer, err
}

// Command returns the TPM_CC of a command.
func Command(command []byte) uint32 { return word(command) }

// Code returns the TPM_RC of a response.
func Code(answer []byte) uint32 { return word(answer) }

func word(b []byte) uint32 {
	if len(b) < 10 {
		return 0
	}
	return binary.BigEndian.Uint32(b[6:])
}

// Refuse returns a response with a TPM_RC and nothing else.
func Refuse(code uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{0x80, 0x01, 0, 0, 0, 10}, code)
}

const (
	ccGetCapability    = 0x17a
	ccEncryptDecrypt   = 0x164
	ccEncryptDecrypt2  = 0x193
	ccStartAuthSession = 0x176
	capHandles         = 1
	capCommands        = 2
)

// WithoutEncryptDecrypt makes a TPM look like the many discrete chips that have neither
// TPM2_EncryptDecrypt nor TPM2_EncryptDecrypt2.
func WithoutEncryptDecrypt(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
	return Without(ccEncryptDecrypt, ccEncryptDecrypt2)(command, send)
}

// Without makes a TPM look like one that lacks some commands: it refuses them with
// TPM_RC_COMMAND_CODE and does not list them.
func Without(missing ...uint32) Quirk {
	return func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
		switch cc := Command(command); {
		case slices.Contains(missing, cc):
			return Refuse(0x143), nil
		case cc == ccGetCapability && len(command) == 22 && binary.BigEndian.Uint32(command[10:]) == capCommands:
			wanted := binary.BigEndian.Uint32(command[18:])
			answer, err := send(binary.BigEndian.AppendUint32(command[:18:18], wanted+uint32(len(missing))))
			if err != nil || Code(answer) != 0 || len(answer) < 19 {
				return answer, err
			}
			return withoutCommands(answer, missing, int(wanted)), nil
		}
		return send(command)
	}
}

// withoutCommands removes commands from a list (TPML_CCA), and keeps at most most.
func withoutCommands(answer []byte, missing []uint32, most int) []byte {
	kept := bytes.Clone(answer[:19])
	for list := answer[19:]; len(list) >= 4 && len(kept) < 19+4*most; list = list[4:] {
		if !slices.Contains(missing, binary.BigEndian.Uint32(list)&0xffff) {
			kept = append(kept, list[:4]...)
		}
	}
	binary.BigEndian.PutUint32(kept[2:], uint32(len(kept)))
	binary.BigEndian.PutUint32(kept[15:], uint32(len(kept)-19)/4)
	return kept
}

// FewSessions makes a TPM look like one with room for n sessions: one more is
// TPM_RC_SESSION_MEMORY.
func FewSessions(n int) Quirk {
	return func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
		if Command(command) != ccStartAuthSession {
			return send(command)
		}
		ask := []byte{0x80, 0x01, 0, 0, 0, 22, 0, 0, 0x01, 0x7a, 0, 0, 0, capHandles, 0x02, 0, 0, 0, 0, 0, 0, 64}
		answer, err := send(ask)
		if err != nil || Code(answer) != 0 {
			return answer, err
		}
		if (len(answer)-19)/4 >= n {
			return Refuse(0x903), nil
		}
		return send(command)
	}
}

// Piecewise makes a TPM return at most n items of a capability at a time.
func Piecewise(n uint32) Quirk {
	return func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
		const countAt = 18
		if Command(command) == ccGetCapability && len(command) == countAt+4 && binary.BigEndian.Uint32(command[countAt:]) > n {
			command = bytes.Clone(command)
			binary.BigEndian.PutUint32(command[countAt:], n)
		}
		return send(command)
	}
}

// RefuseCommand answers one command with a code, such as TPM_RC_LOCKOUT (0x921).
func RefuseCommand(cc, code uint32) Quirk {
	return func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
		if Command(command) == cc {
			return Refuse(code), nil
		}
		return send(command)
	}
}

// Retry answers every command n times with a code, such as TPM_RC_RETRY (0x922), before
// forwarding it.
func Retry(code uint32, n int) Quirk {
	var refused atomic.Int32
	return func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
		if int(refused.Add(1)) <= n {
			return Refuse(code), nil
		}
		refused.Store(0)
		return send(command)
	}
}

// Delay delays every command.
func Delay(d time.Duration) Quirk {
	return func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
		time.Sleep(d)
		return send(command)
	}
}
