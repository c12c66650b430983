//! Compare texts without copying them.

/// The longer of two texts, the first where both have the same number of bytes.
pub fn longest(left: &str, right: &str) -> &str {
    if right.len() > left.len() {
        right
    } else {
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
