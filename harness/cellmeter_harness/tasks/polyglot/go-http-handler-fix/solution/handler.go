// Package gohttphandler greets over HTTP.
package gohttphandler

import (
	"fmt"
	"net/http"
)

// Greet answers GET requests with a greeting for the name in the query.
func Greet(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		refuse(w, http.StatusMethodNotAllowed, "GET only")
		return
	}
	name := r.URL.Query().Get("name")
	if name == "" {
		refuse(w, http.StatusBadRequest, "a name is required")
		return
	}
	fmt.Fprintf(w, "Hello, %s!\n", name)
}

func refuse(w http.ResponseWriter, status int, reason string) {
	w.WriteHeader(status)
	fmt.Fprintln(w, reason)
}
