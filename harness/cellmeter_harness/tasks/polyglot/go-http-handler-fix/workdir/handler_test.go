package gohttphandler

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func check(t *testing.T, method, target string, status int, body string) {
	t.Helper()
	answer := httptest.NewRecorder()
	Greet(answer, httptest.NewRequest(method, target, nil))
	if answer.Code != status {
		t.Errorf("status: got %d want %d", answer.Code, status)
	}
	if answer.Body.String() != body {
		t.Errorf("body: got %q want %q", answer.Body.String(), body)
	}
}

func TestGreet_NameReturns200(t *testing.T) {
	check(t, http.MethodGet, "/?name=Ada", http.StatusOK, "Hello, Ada!\n")
}

func TestGreet_MissingNameReturns400(t *testing.T) {
	check(t, http.MethodGet, "/", http.StatusBadRequest, "a name is required\n")
}

func TestGreet_EmptyNameReturns400(t *testing.T) {
	check(t, http.MethodGet, "/?name=", http.StatusBadRequest, "a name is required\n")
}

func TestGreet_OtherMethodReturns405(t *testing.T) {
	check(t, http.MethodPost, "/?name=Ada", http.StatusMethodNotAllowed, "GET only\n")
}
