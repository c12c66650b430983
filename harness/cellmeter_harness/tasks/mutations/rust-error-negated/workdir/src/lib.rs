//! Call something until it works.

/// Why no value came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure<E> {
    /// No attempt was allowed.
    NotTried,
    /// Every attempt failed, the last one with this error.
    Exhausted(E),
}

/// Call `operation` with the attempt's number until it succeeds, at most `max_attempts` times.
pub fn retry<T, E>(
    max_attempts: u32,
    mut operation: impl FnMut(u32) -> Result<T, E>,
) -> Result<T, Failure<E>> {
    let mut outcome = Err(Failure::NotTried);
    for attempt in 0..max_attempts {
        outcome = operation(attempt).map_err(Failure::Exhausted);
        if outcome.is_err() {
            break;
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_attempt_ok_returns_immediately() {
        let mut calls = 0;
        let got: Result<u32, Failure<String>> = retry(5, |_| {
            calls += 1;
            Ok(7)
        });
        assert_eq!(got, Ok(7));
        assert_eq!(calls, 1);
    }

    #[test]
    fn retries_on_error_until_success() {
        let got = retry(5, |attempt| {
            if attempt < 2 {
                Err(format!("attempt {attempt}"))
            } else {
                Ok(attempt)
            }
        });
        assert_eq!(got, Ok(2));
    }

    #[test]
    fn gives_up_after_max_attempts() {
        let mut calls = 0;
        let got: Result<u32, _> = retry(3, |attempt| {
            calls += 1;
            Err(attempt)
        });
        assert_eq!(got, Err(Failure::Exhausted(2)));
        assert_eq!(calls, 3);
    }

    #[test]
    fn zero_max_attempts_errors() {
        let got: Result<u32, Failure<String>> = retry(0, |_| Ok(7));
        assert_eq!(got, Err(Failure::NotTried));
    }
}
