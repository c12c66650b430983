//! Read numbers that a user typed.

/// A field that is not a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadNumber {
    /// Position of the field, from 0.
    pub index: usize,
    /// The field, without the spaces around it.
    pub value: String,
}

/// The numbers in a list separated by commas.
pub fn parse_numbers(text: &str) -> Result<Vec<i64>, BadNumber> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut numbers = Vec::new();
    for field in text.split(',') {
        numbers.push(field.trim().parse().unwrap());
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn happy_path() {
        assert_eq!(parse_numbers("1, 22,333"), Ok(vec![1, 22, 333]));
    }

    #[test]
    fn empty() {
        assert_eq!(parse_numbers("  "), Ok(vec![]));
    }

    #[test]
    fn negative_numbers() {
        assert_eq!(parse_numbers("-1,-20"), Ok(vec![-1, -20]));
    }

    #[test]
    fn bad_input_does_not_panic() {
        for text in ["x", "1,,2", "1,2,", "99999999999999999999"] {
            assert!(parse_numbers(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn bad_input_reports_index_and_value() {
        let value = "two".to_string();
        assert_eq!(parse_numbers("1, two ,x"), Err(BadNumber { index: 1, value }));
    }
}
