// The pristine tests, against the library from outside.

#[cfg(test)]
mod tests {
    use longest::longest;

    #[test]
    fn longer_text_wins() {
        assert_eq!(longest("ab", "abc"), "abc");
        assert_eq!(longest("abc", "ab"), "abc");
    }

    #[test]
    fn first_wins_a_tie() {
        assert_eq!(longest("one", "two"), "one");
    }

    #[test]
    fn result_borrows_from_an_argument() {
        let (left, right) = (String::from("short"), String::from("a longer text"));
        assert_eq!(longest(&left, &right).as_ptr(), right.as_ptr());
    }
}
