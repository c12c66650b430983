"""What a call's tokens would be, where the provider did not say: estimates made offline from the text itself."""
