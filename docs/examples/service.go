//go:build ignore

// A service behind msl-hsm, with net/http: go run service.go [PORT]
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
)

func main() {
	port := "3000"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("http://%s/\n", l.Addr())
	log.Fatal(http.Serve(l, http.HandlerFunc(answer)))
}

func answer(w http.ResponseWriter, r *http.Request) {
	device, err := url.PathUnescape(r.Header.Get("Msl-Entity"))
	if err != nil {
		http.Error(w, "Msl-Entity: "+err.Error(), http.StatusBadRequest)
		return
	}
	size, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		return // the message broke off: nothing may be done with a part of it
	}
	fmt.Fprintf(w, "%s sent %d bytes\n", device, size)
}
