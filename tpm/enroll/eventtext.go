package enroll

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf16"

	"github.com/google/go-eventlog/tcg"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// eventText returns the text in the data of an event: the name of a variable, the file of a
// program, or the data itself, if it is text. It has at most 100 characters.
func eventText(e tcg.Event) string {
	const most = 100
	text := strings.Trim(rawText(e), "\x00")
	if len(text) > most {
		text = text[:most]
	}
	return proof.Shorten(text)
}

func rawText(e tcg.Event) string {
	switch e.Type {
	case tcg.EFIVariableDriverConfig, tcg.EFIVariableBoot, tcg.EFIVariableBoot2, tcg.EFIVariableAuthority:
		return variableName(e.Data)
	case tcg.EFIBootServicesApplication, tcg.EFIBootServicesDriver, tcg.EFIRuntimeServicesDriver:
		return imageFile(e.Data)
	}
	if printable(e.Data) {
		return string(e.Data)
	}
	if text := utf16Text(e.Data); printable([]byte(text)) {
		return text
	}
	return ""
}

// variableName returns the name in a UEFI_VARIABLE_DATA, which follows a GUID, its length
// in characters and the value's length.
func variableName(data []byte) string {
	const header = 16 + 8 + 8
	if len(data) < header {
		return ""
	}
	length := binary.LittleEndian.Uint64(data[16:])
	if rest := data[header:]; length <= uint64(len(rest))/2 {
		return utf16Text(rest[:2*length])
	}
	return ""
}

// imageFile returns the path of the program that was started: its device path ends with a
// file (UEFI Specification, section 10.3.5.4).
func imageFile(data []byte) string {
	const filePath = 4
	image, err := tcg.ParseEFIImageLoad(bytes.NewReader(data))
	if err != nil {
		return ""
	}
	path, err := image.DevicePath()
	if err != nil {
		return ""
	}
	var file string
	for _, element := range path {
		if element.Type == tcg.MediaDevice && element.Subtype == filePath {
			file += utf16Text(element.Data)
		}
	}
	return file
}

func utf16Text(data []byte) string {
	if len(data)%2 != 0 {
		return ""
	}
	var units []uint16
	for ; len(data) >= 2; data = data[2:] {
		units = append(units, binary.LittleEndian.Uint16(data))
	}
	return strings.TrimRight(string(utf16.Decode(units)), "\x00")
}

// printable reports whether data is ASCII text, optionally with a terminating zero byte.
func printable(data []byte) bool {
	data = bytes.TrimRight(data, "\x00\r\n")
	return len(data) > 0 && bytes.IndexFunc(data, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}
